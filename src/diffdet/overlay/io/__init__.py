"""Files of digits: overlay files of Belle II's software, the neutral format in four kinds of files, trees of pictures.

`open_events` reads any of them, block by block; `digits_writer` writes the neutral format, `export_pictures` pictures.
"""
