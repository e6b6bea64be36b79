from .latency import LatencyTable as LatencyTable
from .netadapt import netadapt as netadapt
from .rows import table_rows as table_rows
from .widths import narrow as narrow
