"""From hits to tracks, scatterings and images of the radiation length."""
