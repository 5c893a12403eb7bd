"""Physics on tables of events: kinematics of named vectors, significance of a cut."""
