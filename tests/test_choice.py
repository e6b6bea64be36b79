"""A recommendation holds its limits, and says what more or less would cost."""

import pytest

from keras_mobilenets.analysis import choose, device_scale, measured, plot_variants
from keras_mobilenets.analysis.drawing import pareto_front
from keras_mobilenets.applications.variants import VARIANTS


def test_every_published_variant_was_measured():
    assert [one.variant for one in measured()] == list(VARIANTS)
    for one in measured():
        # Integer files hold a byte for each weight, less the three numbers per channel that normalization loses, and
        # 4 bytes for each bias and scale: between 0.8 and 1.2 bytes a parameter.
        assert 0.8 < one.size_bytes / one.variant.parameters < 1.2
        assert one.latency_ms > 0 and one.arena_bytes > one.variant.size**2 * 3


def test_the_most_accurate_within_the_limits_is_chosen():
    found = choose(max_latency_ms=0.5, max_size_mb=2, image_size=160)
    within = [
        one for one in measured() if one.latency_ms <= 0.5 and one.size_bytes <= 2_000_000 and one.variant.size == 160
    ]
    assert found.best == max(within, key=lambda one: one.variant.top1)
    assert set(found.runners_up) < set(within)
    for one in found.runners_up:
        assert one.latency_ms < found.best.latency_ms or one.size_bytes < found.best.size_bytes
    for one in found.beyond:
        assert one not in within and one.variant.top1 > found.best.variant.top1
    assert choose().best.variant.top1 == max(one.top1 for one in VARIANTS)
    assert choose().beyond == ()


def test_another_device_scales_all_latencies():
    reference = next(one for one in measured() if one.variant.name == "mobilenet_v2_1.0_224")
    scale = device_scale("mobilenet_v2_1.0_224", 10 * reference.latency_ms)
    assert scale == pytest.approx(10)
    there, here = choose(max_latency_ms=5, scale=scale), choose(max_latency_ms=0.5)
    assert there.best.variant == here.best.variant
    assert there.best.latency_ms == pytest.approx(10 * here.best.latency_ms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_latency_ms": 0}, "`max_latency_ms` must be > 0. Received: max_latency_ms=0"),
        ({"max_size_mb": -1}, "`max_size_mb` must be > 0"),
        ({"scale": 0}, "`scale` must be > 0"),
        ({"image_size": 100}, r"`image_size` must be one that was published: \[96, 128, 160, 192, 224\]"),
        ({"max_size_mb": 0.1}, "No published variant fits. The fastest, .* the smallest, mobilenet_v1_0.25"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(**arguments)
    with pytest.raises(ValueError, match="Unknown variant 'v2'"):
        device_scale("v2", 1.0)
    with pytest.raises(ValueError, match="`latency_ms` must be > 0"):
        device_scale("mobilenet_v2_1.0_224", 0)


def test_pareto_front_is_beaten_by_nobody(tmp_path):
    candidates = measured()
    front = pareto_front(candidates, lambda one: one.latency_ms)
    for one in candidates:
        beaten = any(
            best.latency_ms <= one.latency_ms and best.variant.top1 >= one.variant.top1 for best in front if best != one
        )
        assert beaten != (one in front)
    plot_variants(tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
