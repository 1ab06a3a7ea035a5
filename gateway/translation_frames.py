"""What a worker and the child that translates say to each other, frame by frame.

Must never import what translates.
"""

import struct
from typing import Final

# A frame: size of what follows the head, number of the call, what it is.
FRAME: Final = struct.Struct(">IIB")
# From the worker: a call, as JSON; and that nobody waits for its answer any more.
ASK: Final = 0
CANCEL: Final = 1
# From the child: status and content type, as JSON; bytes of the answer; its end.
HEAD: Final = 2
DATA: Final = 3
END: Final = 4
