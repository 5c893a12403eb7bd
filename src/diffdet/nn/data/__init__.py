"""Data for training: folds in memory and in HDF5 files, tables read into them, augmentation, scaling and coding."""
