"""Pictures of data, trainings and predictions. matplotlib is imported when something is drawn, not before."""
