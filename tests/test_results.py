"""What the package gives back: objects to which a field can be added, with a short text."""

from dataclasses import FrozenInstanceError, is_dataclass

import pytest

import pyro_vae as pv
from pyro_vae.comparison import ComparedRun
from pyro_vae.diagnosis import Information, LocalOptimum, Mean, PriorGap, Units

RESULTS = (
    *(pv.GapSearch, pv.InformationBounds, pv.RateDistortion),
    *(pv.Agreement, pv.AnnealedEvidence, pv.BidirectionalGap, pv.BoundCurve, pv.Calibration, pv.Comparison),
    *(
        pv.Coverage,
        pv.LocalTest,
        pv.RandomCoverage,
        pv.Diagnosis,
        pv.ELBOEstimate,
        pv.ExactPosterior,
        pv.LogEvidence,
    ),
    *(ComparedRun, Information, LocalOptimum, Mean, PriorGap, Units),
)


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_is_no_tuple(kind: type) -> None:
    assert is_dataclass(kind) and not issubclass(kind, tuple)
    assert kind.__eq__ is object.__eq__  # tensors have no one truth


def test_results_cannot_be_changed_and_are_short_in_print() -> None:
    data = pv.Digits()
    vae, x = pv.assemble(data), data.test.batch()[:3]
    for result in (
        pv.log_evidence(vae.model, vae.guide, x, num_particles=5),
        pv.elbo(vae.model, vae.guide, x),
        pv.annealed_log_evidence(vae.model, vae.guide, x, num_chains=2, num_temperatures=2),
    ):
        assert "tensor" not in repr(result) and len(repr(result)) < 300
        with pytest.raises(FrozenInstanceError):
            result.estimate = x  # type: ignore[misc]
