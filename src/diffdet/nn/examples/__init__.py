"""Problems to learn on, with data that the package makes itself: what is in them is known, so results can be judged."""
