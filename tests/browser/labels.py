"""Give the playground other labels than the served bundle's: /model and /predict are answered in the browser."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

LISTED = 20


def install(page: Any, classes: Sequence[str]) -> None:
    """Let the page believe in these classes; the first is answered, the others follow with falling probability."""

    def model(route: Any) -> None:
        content = route.fetch().json()
        route.fulfill(json=content | {"classes": sorted(classes)})

    def predict(route: Any) -> None:
        route.fulfill(json=replied(route.fetch().json(), classes))

    page.route("**/model", model)
    page.route("**/predict", predict)


def replied(answer: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Put other classes into an answer."""
    shares = [0.6**place for place in range(len(classes))]
    p = [share / sum(shares) for share in shares]
    listed = [{"label": label, "probability": each} for label, each in zip(classes, p, strict=True)][:LISTED]
    opinions = {name: said | {"label": classes[0]} for name, said in answer["modalities"].items()}
    entropy = -sum(each * math.log(each) for each in p if each)
    inside = list(classes[: max(1, len(classes) - 1)])
    chosen = {"prediction_set": {"labels": inside, "coverage": 0.9, "rows": 212, "pooled": True}}
    more = {"label": classes[0], "probability": p[0], "probabilities": listed, "entropy": entropy}
    return json.loads(json.dumps(answer)) | more | chosen | {"modalities": opinions}  # type: ignore[no-any-return]
