"""The predictor: only what is needed runs, no sample sees its batch, nothing that is damaged is served."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mla_serve.bundle.manifest import Bundle, write_manifest
from mla_serve.bundle.predictor import ENCODE_BATCH, GraphOutputs, Hooks, Predictor
from mla_serve.bundle.results import DEFAULT_TOP_K, PredictionSet
from mla_serve.bundle.runtime import Session, open_session
from mla_serve.errors import BundleError, DataError, InputError, MissingInput, NotFinite, UnknownField
from mla_serve.evaluation.splits import run_split
from mla_serve.fusion.intervals import Intervals
from mla_serve.fusion.novelty import QUANTILES, Reference, References
from mla_serve.fusion.rules import RULES, fuse
from mla_serve.inputs import Array, Payload
from mla_serve.tasks.base import log_softmax

DIGITS = Path(__file__).parents[2] / "models" / "digits"
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


def know_only_zeros(predictor: Predictor, name: str, discount: float = 1.0) -> Predictor:
    """Make every real input of one modality unfamiliar: validation scored 0 to 1, as far from zero as its features were."""
    width = predictor.encode(name, [predictor.decode_one(name, [0.0] * 4)]).shape[1]
    reference = Reference("mahalanobis", np.zeros((1, width)), np.zeros(width), np.eye(width), QUANTILES)
    bundle = predictor.bundle
    bundle.references = References({name: reference})
    bundle.fusion = dataclasses.replace(bundle.fusion, discounts={name: discount})
    return predictor


@pytest.fixture
def wary(tiny_bundle: Path) -> Predictor:
    """Open the tiny bundle and make vectors far from zero unfamiliar to it."""
    return know_only_zeros(Predictor(Bundle.load(tiny_bundle)), "vector")


def test_how_unfamiliar_an_input_is_comes_from_its_features(wary: Predictor, sample: dict[str, Payload]) -> None:
    samples = [wary.decode(one) for one in ({"vector": [1.0, -1.0, 1.0, -1.0]}, {"text": "abc"}, {"vector": [0.0] * 4})]
    outputs = wary.run_graphs(samples)
    vector = wary.names.index("vector")
    features = wary.encode("vector", [samples[0]["vector"]])
    reference = wary.bundle.references.by_modality["vector"]
    length = np.linalg.norm(features)
    assert length > 1
    assert outputs.excess[vector] == pytest.approx([min((length - 0.9) / 0.4, 8.0), 0, 0], rel=1e-5)
    assert outputs.unfamiliarity[vector][[0, 2]] == pytest.approx([1, 0])
    assert np.isnan(outputs.unfamiliarity[vector, 1])
    others = np.arange(len(wary.names)) != vector
    assert (outputs.excess[others] == 0).all()
    assert np.isnan(outputs.unfamiliarity[others]).all()
    assert outputs.excess[vector, 0] == pytest.approx(reference.excess(reference.score(features))[0])


def test_an_unfamiliar_input_weighs_less_in_the_answer(
    predictor: Predictor, wary: Predictor, sample: dict[str, Payload]
) -> None:
    asked: dict[str, Payload] = {"text": sample["text"], "vector": [3.0, -3.0, 3.0, -3.0]}
    trusting, cautious = predictor.predict([asked])[0], wary.predict([asked])[0]
    assert cautious.modalities["vector"].unfamiliarity == 1.0
    assert cautious.modalities["text"].unfamiliarity is None
    assert cautious.modalities["vector"].weight < 0.9 * trusting.modalities["vector"].weight
    assert abs(cautious.probability - trusting.probability) > 0.01
    for label, p in wary.predict([asked], "undiscounted")[0].by_label().items():
        assert p == pytest.approx(trusting.by_label()[label], abs=1e-6)


def test_alone_an_unfamiliar_input_gets_an_unsure_answer(predictor: Predictor, wary: Predictor) -> None:
    asked: dict[str, Payload] = {"vector": [3.0, -3.0, 3.0, -3.0]}
    trusting, cautious = predictor.predict([asked])[0], wary.predict([asked])[0]
    assert cautious.label == trusting.label
    assert cautious.probability < trusting.probability - 0.05
    assert cautious.entropy > trusting.entropy + 0.05


def test_the_answer_is_the_fusion_of_the_outputs_with_their_excess(wary: Predictor, make_sample: MakeSample) -> None:
    outputs = wary.run_graphs([wary.decode(make_sample(seed)) for seed in range(5)])
    assert (outputs.excess[wary.names.index("vector")] > 0).any()
    expected = fuse(outputs.opinions, outputs.present, wary.bundle.fusion, excess=outputs.excess)
    for b, prediction in enumerate(wary.answer_from(outputs)):
        given = [prediction.by_label()[label] for label in wary.classes]
        np.testing.assert_allclose(given, np.exp(expected.answers[b]))
        weights = [prediction.modalities[name].weight for name in wary.names]
        np.testing.assert_allclose(weights, expected.weights[:, b])


def test_golden_samples_are_replayed_at_their_word_as_torch_computed_them(wary: Predictor) -> None:
    """What torch said at export knows no reference; that the discount works is for the tests above."""
    assert wary.verify() < 1e-6


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


def test_hooks_see_every_stage_of_a_sample_in_order(predictor: Predictor, sample: dict[str, Payload]) -> None:
    calls: list[str] = []

    @contextlib.contextmanager
    def decoding(name: str) -> Iterator[None]:
        calls.append(f"begin {name}")
        yield

    def encode(name: str, arrays: Sequence[Array]) -> Array:
        calls.append(f"encode {name}")
        return predictor.encode(name, arrays)

    hooks = Hooks(calls.append, decoding, encode)
    part = {"text": sample["text"], "image": sample["image"]}
    assert predictor.predict_one(part, hooks=hooks) == predictor.predict([part])[0]
    decoded = ["begin text", "decode-text", "begin image", "decode-image"]
    assert calls == [*decoded, "encode image", "encode-image", "encode text", "encode-text", "fuse"]
    calls.clear()
    assert list(predictor.embed(part, hooks)) == ["text", "image"]
    assert calls == [*decoded, "encode text", "encode-text", "encode image", "encode-image"]


def test_a_hook_that_raises_stops_the_work(predictor: Predictor, sample: dict[str, Payload]) -> None:
    def stop(stage: str) -> None:
        if stage == "encode-image":
            raise TimeoutError(stage)

    with pytest.raises(TimeoutError, match="encode-image"):
        predictor.predict_one(sample, hooks=Hooks(stop))
    assert predictor.predict_one({"text": sample["text"]}, hooks=Hooks(stop)).missing == ["image", "audio", "vector"]


def test_a_sample_that_cannot_be_answered_gets_its_error_among_the_others(predictor: Predictor) -> None:
    samples = [predictor.decode({"vector": [float(at)] * 4}) for at in range(3)]

    def encode(name: str, arrays: Sequence[Array]) -> Array:
        if rows := [row for row, array in enumerate(arrays) if array is samples[1]["vector"]]:
            raise NotFinite(name, rows)
        return predictor.encode(name, arrays)

    first, refused, last = predictor.predict_decoded(samples, hooks=Hooks(encode=encode))
    assert isinstance(refused, NotFinite)
    assert [first, last] == predictor.answer_from(predictor.run_graphs([samples[0], samples[2]]))
    assert predictor.predict_decoded([]) == []
    assert isinstance(predictor.predict_decoded(samples[1:2], hooks=Hooks(encode=encode))[0], NotFinite)


def test_golden_samples_are_replayed_within_the_tolerance(tiny_bundle: Path) -> None:
    assert Predictor(Bundle.load(tiny_bundle)).verify() < 1e-6


@pytest.mark.parametrize("wrong", [[1.0, 0.0, 0.0], [float("nan")] * 3])
def test_a_golden_sample_beyond_the_tolerance_is_refused(tiny_bundle: Path, wrong: list[float]) -> None:
    bundle = Bundle.load(tiny_bundle)
    golden = [bundle.manifest.golden[0].model_copy(update={"answer": wrong})]
    bundle.manifest = bundle.manifest.model_copy(update={"golden": golden})
    with pytest.raises(BundleError, match="golden samples differ"):
        Predictor(bundle).verify()


def test_the_tolerance_itself_is_within_the_tolerance(tiny_bundle: Path) -> None:
    predictor = Predictor(Bundle.load(tiny_bundle))
    golden = [
        one.model_copy(update={"probabilities": p.tolist()})
        for one, p in zip(predictor.bundle.manifest.golden, predictor.replay(), strict=True)
    ]
    manifest = predictor.bundle.manifest.model_copy(update={"golden": golden, "tolerance": 0.0})
    predictor.bundle.manifest = manifest
    assert predictor.verify() == 0.0


def test_without_golden_samples_there_is_nothing_to_replay(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    assert Predictor(Bundle.load(make_bundle(tmp_path / "none", golden=0))).verify() == 0.0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, (["CPUExecutionProvider"], 1, False)), ({"threads": 3, "spin": True}, (["CPUExecutionProvider"], 3, True))],
)
def test_every_graph_is_opened_as_asked_and_with_one_thread_that_does_not_spin_unless_asked(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], expected: tuple[list[str], int, bool]
) -> None:
    opened = []

    def open_and_note(graph: bytes, providers: Any, threads: int, *, spin: bool) -> Session:
        opened.append((list(providers), threads, spin))
        return open_session(graph, providers, threads, spin=spin)

    monkeypatch.setattr("mla_serve.bundle.predictor.open_session", open_and_note)
    predictor = Predictor(Bundle.load(tiny_bundle), **asked)
    assert opened == [expected] * (len(predictor.names) + 1)  # one head for all


MANY = tuple(f"class {number:02}" for number in range(40))


@pytest.fixture(scope="module")
def many(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Open a bundle of many classes, with scores for prediction sets under one rule."""
    folder = make_bundle(tmp_path_factory.mktemp("many") / "many", {"words": "text"}, classes=MANY)
    predictor = Predictor(Bundle.load(folder))
    predictor.bundle.intervals = Intervals.of_format_1(predictor.task, {"paper": {"words": [0.97] * 99}})
    return predictor


def outputs(logits: Array) -> GraphOutputs:
    """Stand for B samples whose one modality got these logits (B, C)."""
    shape = 1, len(logits)
    return GraphOutputs(
        logits[None].astype(np.float32), np.ones(shape, dtype=bool), np.full(shape, np.nan), np.zeros(shape)
    )


def test_labels_are_listed_from_the_most_probable_on_and_ties_as_the_model_lists_its_classes(many: Predictor) -> None:
    logits = np.zeros((1, len(MANY)))
    logits[0, 7], logits[0, 3] = 2.0, 1.0
    prediction = many.answer_from(outputs(logits), "paper", coverage=0.9)[0]
    ordered = [MANY[7], MANY[3], *(name for c, name in enumerate(MANY) if c not in (7, 3))]
    assert prediction.label == MANY[7]
    assert list(prediction.by_label()) == ordered[:DEFAULT_TOP_K]
    assert prediction.prediction_set == PredictionSet(ordered[:2], 0.9, 99, pooled=False)
    assert many.answer_from(outputs(logits), "paper", top_k=3)[0].prediction_set is None
    assert list(many.answer_from(outputs(logits), "paper", top_k=3)[0].by_label()) == ordered[:3]
    none_likely = many.answer_from(outputs(np.zeros((1, len(MANY)))), "paper", coverage=0.9)[0]
    assert none_likely.prediction_set.labels == [MANY[0]]
    every = many.answer_from(outputs(logits), "paper", coverage=0.995)[0]
    assert every.prediction_set.labels == ordered


def test_what_each_opinion_says_of_itself_is_its_own_softmax_at_its_temperature(many: Predictor) -> None:
    logits = np.random.default_rng(0).normal(size=(3, len(MANY))).astype(np.float32)
    many.bundle.fusion = dataclasses.replace(many.bundle.fusion, temperatures={"words": 2.0})
    for rule, temperature in (("calibrated", 2.0), ("undiscounted", 2.0), ("paper", 1.0)):
        p = np.exp(log_softmax(logits.astype(np.float64) / temperature))
        for b, prediction in enumerate(many.answer_from(outputs(logits), rule)):
            opinion = prediction.modalities["words"]
            assert opinion.label == MANY[p[b].argmax()]
            assert opinion.probability == pytest.approx(p[b].max())
            assert opinion.entropy == pytest.approx(-(p[b] * np.log(p[b])).sum())
            assert opinion.weight == 1
            assert opinion.influence == pytest.approx(np.log(prediction.probability * len(MANY)))
            assert opinion.unfamiliarity is None
            assert prediction.fusion == rule


def test_the_entropy_of_an_answer_is_that_of_its_probabilities(many: Predictor) -> None:
    prediction = many.answer_from(outputs(np.random.default_rng(1).normal(size=(1, len(MANY)))), top_k=len(MANY))[0]
    p = np.array(list(prediction.by_label().values()))
    assert prediction.entropy == pytest.approx(-(p * np.log(p)).sum())
    assert prediction.probability == p.max()


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"coverage": 0.0}, "coverage"),
        ({"coverage": 1.0}, "coverage"),
        ({"coverage": float("nan")}, "coverage"),
        ({"coverage": 0.9, "rule": "product"}, "coverage"),
        ({"rule": "vote"}, "fusion"),
    ],
)
def test_an_option_that_cannot_be_had_is_refused_by_its_name(
    many: Predictor, option: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as refused:
        many.answer_from(outputs(np.zeros((1, len(MANY)))), **({"rule": "paper"} | option))
    assert refused.value.field == field


@pytest.mark.parametrize("option", [{"top_k": 1}, {"top_k": 100}, {"coverage": 1e-9}, {"coverage": 1 - 1e-9}, {}])
def test_options_at_the_edge_of_what_can_be_had_are_taken(many: Predictor, option: dict[str, Any]) -> None:
    prediction = many.answer_from(outputs(np.zeros((1, len(MANY)))), "paper", **option)[0]
    assert len(prediction.probabilities) == min(option.get("top_k", DEFAULT_TOP_K), 40)


def test_samples_that_cannot_be_heard_are_left_out_one_modality_after_the_other(
    predictor: Predictor, make_sample: MakeSample
) -> None:
    decoded = [predictor.decode(make_sample(seed)) for seed in range(6)]
    del decoded[0]["text"], decoded[4]["image"]
    spoiled = {"image": [id(decoded[3]["image"])], "text": [id(decoded[at]["text"]) for at in (1, 5)]}
    laps: list[str] = []

    def encode(name: str, arrays: Sequence[Array]) -> Array:
        if rows := [row for row, array in enumerate(arrays) if id(array) in spoiled.get(name, [])]:
            raise NotFinite(name, rows)
        return predictor.encode(name, arrays)

    outputs, refused = predictor.run_usable(decoded, Hooks(laps.append, encode=encode))
    assert {at: error.field for at, error in refused.items()} == {3: "image", 1: "text", 5: "text"}
    expected = predictor.run_graphs([decoded[at] for at in (0, 2, 4)])
    np.testing.assert_allclose(outputs.opinions, expected.opinions, atol=1e-5)
    np.testing.assert_array_equal(outputs.present, expected.present)
    assert laps[-4:] == [f"encode-{name}" for name in predictor.names]


def test_a_payload_that_cannot_be_decoded_is_refused_by_the_name_of_its_modality(predictor: Predictor) -> None:
    bad: dict[str, Payload] = {"image": b"no picture", "audio": b"no sound", "text": b"\xff", "vector": [1.0]}
    for name, payload in bad.items():
        for call in (lambda n, p: predictor.decode_one(n, p), lambda n, p: predictor.predict([{n: p}])):
            with pytest.raises(InputError) as refused:
                call(name, payload)
            assert refused.value.field == name


def test_it_is_the_name_of_the_modality_and_not_of_its_kind(many: Predictor) -> None:
    for call in (lambda: many.decode_one("words", b"\xff"), lambda: many.predict([{"words": b"\xff"}])):
        with pytest.raises(InputError) as refused:
            call()
        assert refused.value.field == "words"


class Constant(Session):
    """A graph that answers the next of some numbers in every place."""

    def __init__(self, width: int, values: Sequence[float]) -> None:
        self._width, self._values = width, list(values)

    def run(self, batch: Array) -> Array:
        return np.array([[self._values.pop(0)] * self._width for _ in batch], dtype=np.float32)


@pytest.mark.parametrize("values", [[3e38, 3e38], [np.inf, -np.inf], [np.nan, 1.0]])
def test_windows_whose_mean_is_no_finite_number_are_refused_by_name_without_a_warning(
    tiny_bundle: Path, values: list[float]
) -> None:
    predictor = Predictor(Bundle.load(tiny_bundle))
    predictor._encoders["audio"] = Constant(8, values)
    with pytest.raises(NotFinite) as refused:
        predictor.encode("audio", [np.zeros((2, 500), dtype=np.float32)])
    assert (refused.value.field, refused.value.rows) == ("audio", [0])


def test_one_window_or_a_head_without_finite_numbers_is_refused_by_name(tiny_bundle: Path) -> None:
    predictor = Predictor(Bundle.load(tiny_bundle))
    predictor._encoders["audio"] = Constant(8, [1.0, np.inf])
    predictor._heads["head"] = Constant(3, [np.nan, 1.0])
    with pytest.raises(NotFinite) as refused:
        predictor.encode("audio", [np.zeros((1, 500), dtype=np.float32)] * 2)
    assert (refused.value.field, refused.value.rows) == ("audio", [1])
    with pytest.raises(NotFinite) as refused:
        predictor.head("audio", np.zeros((2, 8), dtype=np.float32))
    assert (refused.value.field, refused.value.rows) == ("audio", [0])


def test_what_graphs_give_stays_in_single_precision(predictor: Predictor, sample: dict[str, Payload]) -> None:
    windows = predictor.decode_one("audio", wav(np.random.default_rng(0).uniform(-0.5, 0.5, 1250)))
    assert predictor.encode("audio", [windows]).dtype == np.float32
    assert predictor.run_graphs([predictor.decode(sample)]).opinions.dtype == np.float32


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e30])
def test_the_excess_of_any_far_input_is_the_most_without_a_warning(tiny_bundle: Path, scale: float) -> None:
    predictor = know_only_zeros(Predictor(Bundle.load(tiny_bundle)), "vector")
    reference = predictor.bundle.references.by_modality["vector"]
    further = dataclasses.replace(reference, whiten=scale * reference.whiten)
    predictor.bundle.references = References({"vector": further})
    outputs = predictor.run_graphs([predictor.decode({"vector": [1e37, -1e37, 1e37, -1e37]})])
    assert outputs.excess[predictor.names.index("vector")] == [8.0]
    assert outputs.unfamiliarity[predictor.names.index("vector")] == [1.0]


def test_a_prediction_set_is_given_to_whoever_asks_for_a_coverage(many: Predictor) -> None:
    assert many.predict([{"words": "abc"}], "paper", coverage=0.9)[0].prediction_set
    assert many.predict([{"words": "abc"}], "paper")[0].prediction_set is None


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
        with pytest.raises(InputError, match="returns infinity or NaN") as caught:
            predictor.predict([sample, part])
        assert caught.value.field == "vector"
        assert isinstance(caught.value, NotFinite)
        assert caught.value.rows == [1]


def test_whoever_can_be_answered_is_answered(predictor: Predictor, make_sample: MakeSample) -> None:
    samples = [make_sample(seed) for seed in range(3)]
    samples[0] = samples[0] | {"vector": HUGE}
    decoded = [predictor.decode(each) for each in samples]
    outputs, refused = predictor.run_usable(decoded)
    assert list(refused) == [0]
    together = predictor.answer_from(outputs)
    for answer, each in zip(together, samples[1:], strict=True):
        assert answer.probability == pytest.approx(predictor.predict([each])[0].probability, abs=1e-6)
    assert list(predictor.run_usable(decoded[:1])[1]) == [0]


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
    with pytest.raises(BundleError, match=r"tiny: golden samples .* returns infinity or NaN"):
        predictor.verify()


@pytest.mark.parametrize("size", [1e-38, 1e10, 1e30, 1e37])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_extreme_but_finite_are_answered(predictor: Predictor, size: float) -> None:
    for rule in RULES:
        answer = predictor.predict([{"vector": [size, -size, size, 0.0]}], rule)[0]
        assert sum(answer.by_label().values()) == pytest.approx(1.0)
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
    with pytest.raises(DataError, match=r"test\.jsonl:2: vector: .* returns infinity or NaN"):
        run_split(Predictor(Bundle.load(tiny_bundle)), tmp_path)
