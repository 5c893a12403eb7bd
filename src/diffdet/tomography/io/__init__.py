"""Tables of hits and voxel images on disk."""
