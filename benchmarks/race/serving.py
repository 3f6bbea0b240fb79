"""The answering side: a JSON line in, a JSON line out. Free of all but Python itself, so that any interpreter can serve.

{"ask": "clock", "repeats": 5}   ->   what `clock(repeats=5)` of the asked object returns, or {"error": ...}
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(make: Callable[[], Any]) -> None:
    """Answer until standard input ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            asked = asked or make()
            answer = getattr(asked, question.pop("ask"))(**question)
        except Exception as error:  # whatever a rival raises is its answer
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
