"""Reports: one self-contained HTML file from a run folder, readable offline, on paper and on a phone.

`write_report` reads only what stands in the folder, so that a report can be rebuilt at any time.
"""

from diffdet.report.write import write_report as write_report
