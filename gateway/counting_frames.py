"""What a worker and the child that counts tokens say to each other, frame by frame.

Must never import what counts.
"""

import struct
from typing import Final

# A question: size of what follows the head, number, what is asked. An answer: size and number.
QUESTION: Final = struct.Struct(">IIB")
ANSWER: Final = struct.Struct(">II")
COUNT_TEXTS: Final = 0
COUNT_PARTS: Final = 1
FAILED: Final = b"null"
# Read at once from a pipe, which holds no more unless somebody made it larger.
PIPE_BYTES: Final = 65_536
