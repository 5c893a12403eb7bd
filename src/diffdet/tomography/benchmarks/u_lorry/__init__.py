"""Find uranium in a lorry full of scrap."""
