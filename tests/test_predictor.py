"""The predictor: only what is needed runs, no sample sees its batch, nothing that is damaged is served."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mla_serve.bundle import Bundle, write_manifest
from mla_serve.errors import BundleError, DataError, InputError, MissingInput, NotFinite, UnknownField
from mla_serve.evaluate import hear_split
from mla_serve.fusion import RULES
from mla_serve.inputs import Array, Payload
from mla_serve.predictor import ENCODE_BATCH, Predictor
from mla_serve.runtime import Session

DIGITS = Path(__file__).parents[1] / "models" / "digits"
MakeSample = Callable[[int], dict[str, Payload]]


class Counted(Session):
    """A graph that keeps the size of each batch that it was run on."""

    def __init__(self, session: Session) -> None:
        self._counted = session
        self.batches: list[int] = []

    def run(self, batch: Array) -> Array:
        self.batches.append(len(batch))
        return self._counted.run(batch)


@pytest.fixture
def counted(tiny_bundle: Path) -> tuple[Predictor, dict[str, Counted]]:
    """Open the tiny bundle with graphs that count."""
    predictor = Predictor(Bundle.load(tiny_bundle))
    predictor._encoders = graphs = {name: Counted(graph) for name, graph in predictor._encoders.items()}  # type: ignore[assignment]
    return predictor, graphs


def test_only_the_needed_graphs_are_run(
    counted: tuple[Predictor, dict[str, Counted]], sample: dict[str, Payload], all_subsets: Any
) -> None:
    predictor, graphs = counted
    for names in all_subsets(list(sample)):
        for graph in graphs.values():
            graph.batches.clear()
        prediction = predictor.predict([{name: sample[name] for name in names}])[0]
        assert {name for name, graph in graphs.items() if graph.batches} == set(names) == set(prediction.modalities)
        assert sum(opinion.weight for opinion in prediction.modalities.values()) == pytest.approx(1.0)
        assert sum(prediction.by_label().values()) == pytest.approx(1.0)
        assert prediction.missing == [name for name in predictor.names if name not in names]


def test_a_batch_runs_each_graph_once_and_long_ones_in_slices(
    counted: tuple[Predictor, dict[str, Counted]], make_sample: MakeSample
) -> None:
    predictor, graphs = counted
    predictor.predict(
        [{"text": make_sample(0)["text"]}] * 3 + [{"vector": make_sample(0)["vector"]}] * (ENCODE_BATCH + 1)
    )
    assert graphs["text"].batches == [3]
    assert graphs["vector"].batches == [ENCODE_BATCH, 1]
    assert not graphs["image"].batches


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_does_not_see_its_batch(
    predictor: Predictor, make_sample: MakeSample, all_subsets: Any, rule: str
) -> None:
    subsets = all_subsets(predictor.names)
    samples = [{name: make_sample(seed)[name] for name in subsets[seed % len(subsets)]} for seed in range(20)]
    for sample, together in zip(samples, predictor.predict(samples, rule), strict=True):
        alone = predictor.predict([sample], rule)[0]
        assert together.label == alone.label
        assert together.by_label() == pytest.approx(alone.by_label(), abs=1e-6)


def test_one_modality_alone_has_all_the_weight(predictor: Predictor, sample: dict[str, Payload]) -> None:
    for name, payload in sample.items():
        prediction = predictor.predict([{name: payload}])[0]
        assert prediction.modalities[name].weight == 1.0
        assert prediction.modalities[name].label == prediction.label


def wav(samples: Array, rate: int = 1000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_the_features_of_windows_are_averaged(predictor: Predictor) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1250)
    windows = predictor.decode_one("audio", wav(noise))
    assert windows.shape == (4, 500)
    one_by_one = np.concatenate([predictor.encode("audio", [window[None]]) for window in windows])
    np.testing.assert_allclose(predictor.encode("audio", [windows])[0], one_by_one.mean(axis=0), atol=1e-5)


def test_clips_of_different_length_keep_apart_in_a_batch(predictor: Predictor) -> None:
    generator = np.random.default_rng(1)
    clips = [wav(generator.uniform(-0.5, 0.5, length)) for length in (1250, 300, 500, 900)]
    arrays = [predictor.decode_one("audio", clip) for clip in clips]
    together = predictor.encode("audio", arrays)
    alone = np.concatenate([predictor.encode("audio", [array]) for array in arrays])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_options_are_checked(predictor: Predictor, sample: dict[str, Payload]) -> None:
    assert list(predictor.predict([sample], top_k=1)[0].by_label()) == [predictor.predict([sample])[0].label]
    with pytest.raises(UnknownField, match="fusion"):
        predictor.predict([sample], rule="vote")
    with pytest.raises(InputError, match="top_k"):
        predictor.predict([sample], top_k=0)


def test_twenty_labels_are_listed_by_falling_probability_unless_top_k_says_otherwise(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    classes = [str(label) for label in range(30)]
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "thirty", {"text": "text"}, classes)))
    for top_k, number in ((None, 20), (1, 1), (25, 25), (30, 30), (99, 30)):
        answer = predictor.predict([{"text": "seven"}], top_k=top_k)[0]
        values = [each.probability for each in answer.probabilities]
        assert len(values) == number
        assert values == sorted(values, reverse=True)
        assert (answer.probabilities[0].label, values[0]) == (answer.label, answer.probability)
        assert list(answer.by_label().items()) == [(each.label, each.probability) for each in answer.probabilities]
    assert sum(values) == pytest.approx(1)


def test_an_empty_or_unknown_sample_is_refused(predictor: Predictor) -> None:
    with pytest.raises(MissingInput, match="send at least one of image, audio, text, vector"):
        predictor.predict([{}])
    with pytest.raises(UnknownField, match="video"):
        predictor.predict([{"video": b"x"}])


def test_laps_name_the_graphs_that_ran(predictor: Predictor, sample: dict[str, Payload]) -> None:
    laps: list[str] = []
    predictor.logits([predictor.decode({"text": sample["text"], "image": sample["image"]})], laps.append)
    assert laps == ["encode-image", "encode-text"]


def test_golden_samples_are_replayed_within_the_tolerance(tiny_bundle: Path) -> None:
    assert Predictor(Bundle.load(tiny_bundle)).verify() < 1e-6


@pytest.mark.parametrize("wrong", [[1.0, 0.0, 0.0], [float("nan")] * 3])
def test_a_golden_sample_beyond_the_tolerance_is_refused(tiny_bundle: Path, wrong: list[float]) -> None:
    bundle = Bundle.load(tiny_bundle)
    golden = [bundle.manifest.golden[0].model_copy(update={"probabilities": wrong})]
    bundle.manifest = bundle.manifest.model_copy(update={"golden": golden})
    with pytest.raises(BundleError, match="golden samples differ"):
        Predictor(bundle).verify()


def test_without_golden_samples_there_is_nothing_to_replay(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    assert Predictor(Bundle.load(make_bundle(tmp_path / "none", golden=0))).verify() == 0.0


def test_a_graph_that_onnxruntime_cannot_load_is_named(bundle_copy: Path) -> None:
    manifest = Bundle.load(bundle_copy).manifest
    (bundle_copy / "text.onnx").write_bytes(b"no graph")
    write_manifest(bundle_copy, manifest)
    with pytest.raises(BundleError, match=r"text\.onnx: onnxruntime cannot load it"):
        Predictor(Bundle.load(bundle_copy))


def test_a_missing_graph_is_named(bundle_copy: Path) -> None:
    (bundle_copy / "head.onnx").unlink()
    with pytest.raises(BundleError, match=r"head\.onnx"):
        Predictor(Bundle.load(bundle_copy))


def test_a_prediction_becomes_plain_values(predictor: Predictor, sample: dict[str, Payload]) -> None:
    prediction = predictor.predict([sample])[0]
    assert prediction.to_dict() == dataclasses.asdict(prediction)
    assert type(prediction.probability) is float
    assert predictor.providers == ["CPUExecutionProvider"]


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e-4])
def test_the_model_that_comes_along_hears_silence_without_losing_its_mind(level: float) -> None:
    """A muted microphone sends zeros; what it says is finite and unsure."""
    predictor = Predictor(Bundle.load(DIGITS))
    generator = np.random.default_rng(0)
    buffer = io.BytesIO()
    soundfile.write(buffer, level * generator.standard_normal(8000), 8000, format="WAV", subtype="FLOAT")
    opinion = predictor.predict([{"audio": buffer.getvalue(), "text": "sieben"}])[0].modalities["audio"]
    assert opinion.weight < 0.5
    assert opinion.entropy > 0.5


HUGE = [3e38] * 4


def test_numbers_that_the_model_cannot_take_are_no_answer(predictor: Predictor, sample: dict[str, Payload]) -> None:
    """Not even by the other modalities: whoever sent them would not know that they were left out."""
    for part in ({"vector": HUGE}, sample | {"vector": HUGE}):
        with pytest.raises(InputError, match="no finite numbers") as caught:
            predictor.predict([sample, part])
        assert caught.value.field == "vector"
        assert isinstance(caught.value, NotFinite)
        assert caught.value.rows == [1]


def test_whoever_can_be_answered_is_answered(predictor: Predictor, make_sample: MakeSample) -> None:
    samples = [make_sample(seed) for seed in range(3)]
    samples[0] = samples[0] | {"vector": HUGE}
    decoded = [predictor.decode(each) for each in samples]
    heard, refused = predictor.hear_usable(decoded)
    assert list(refused) == [0]
    together = predictor.conclude(heard)
    for answer, each in zip(together, samples[1:], strict=True):
        assert answer.probability == pytest.approx(predictor.predict([each])[0].probability, abs=1e-6)
    assert list(predictor.hear_usable(decoded[:1])[1]) == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("graphs", ["_encoders", "_heads"])
def test_one_number_that_is_not_finite_is_no_answer(
    tiny_bundle: Path, make_sample: MakeSample, graphs: str, value: float
) -> None:
    """Whichever graph makes it, whatever it is, and in whichever window of a recording."""

    class Spoilt(Session):
        def __init__(self, session: Session) -> None:
            self._sound = session

        def run(self, batch: Array) -> Array:
            rows = self._sound.run(batch)
            rows[-1, 0] = value
            return rows

    predictor = Predictor(Bundle.load(tiny_bundle))
    spoilt = "audio" if graphs == "_encoders" else "head"
    getattr(predictor, graphs)[spoilt] = Spoilt(getattr(predictor, graphs)[spoilt])
    samples = [{"audio": make_sample(seed)["audio"]} for seed in range(3)]
    with pytest.raises(NotFinite) as caught:
        predictor.predict(samples)
    assert caught.value.field == "audio"
    assert caught.value.rows == [2]
    with pytest.raises(BundleError, match=r"golden samples .* no finite numbers"):
        predictor.verify()


@pytest.mark.parametrize("size", [1e-38, 1e10, 1e30, 1e37])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_extreme_but_finite_are_answered(predictor: Predictor, size: float) -> None:
    for rule in RULES:
        answer = predictor.predict([{"vector": [size, -size, size, 0.0]}], rule)[0]
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
        assert np.isfinite(answer.entropy)


def test_a_row_that_the_model_cannot_take_is_named_when_measuring(tmp_path: Path, tiny_bundle: Path) -> None:
    rows = [{"id": f"row-{n}", "label": "red", "vector": [0.1 * n] * 4} for n in range(3)]
    rows[1]["vector"] = HUGE
    (tmp_path / "train.jsonl").write_text(
        "".join(
            json.dumps(rows[0] | {"id": f"t-{n}", "label": label}) + "\n" for n, label in enumerate(("red", "blue"))
        )
    )
    (tmp_path / "dataset.json").write_text(json.dumps({"modalities": {"vector": "vector"}}))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"row row-1: vector: .* no finite numbers"):
        hear_split(Predictor(Bundle.load(tiny_bundle)), tmp_path)
