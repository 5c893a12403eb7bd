"""Tables of hits and voxel images on disk."""

from diffdet.tomography.io.columns import ALL_COLUMNS as ALL_COLUMNS
from diffdet.tomography.io.columns import BASE_COLUMNS as BASE_COLUMNS
from diffdet.tomography.io.columns import OPTIONAL_COLUMNS as OPTIONAL_COLUMNS
from diffdet.tomography.io.columns import ColumnMap as ColumnMap
from diffdet.tomography.io.reader import FORMATS as FORMATS
from diffdet.tomography.io.reader import HitsReader as HitsReader
from diffdet.tomography.io.table import HitTable as HitTable
from diffdet.tomography.io.writer import HitsWriter as HitsWriter
