"""The generator `clusters`: draws clusters from small learned distributions and writes digits, never an image."""
