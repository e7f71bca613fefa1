"""A regime model from rows to a folder that says whether it may take the rule's place.

The candidate is chosen by the walk-forward folds, before the final period is looked at. It may serve
if it was right more often than the rule in every period that judged it, over all rows and per class,
with the whole interval above zero. Otherwise its card says why not, and the rule serves.
"""

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from msgspec.structs import asdict, replace

from infra.onnx_session import (
    MODEL_NAME,
    REGIME_CLASSES,
    ModelCard,
    ModelRefusedError,
    OnnxSession,
)
from onnx_models.artefact import (
    SELF_TEST_ROWS,
    Parity,
    check,
    check_parity,
    measure_parity,
    open_session,
    write_artefact,
)
from onnx_models.calibration import Calibration
from onnx_models.dataset import HOUR_NS
from onnx_models.evaluation import INTERVAL_METHOD, round_figures
from onnx_models.families import Fitted, be_silent
from onnx_models.regimes.candidates import CANDIDATES, RegimeFit
from onnx_models.regimes.rows import RegimeRows
from onnx_models.regimes.scores import RULE, Caller, RegimePeriod, is_better, score_callers
from onnx_models.train import FINAL_BUDGET_SHARE, TrainedModel, TrainOptions
from onnx_models.walk_forward import Fold, RecordingTooShortError, plan_walk_forward
from operators.regime import RegimeRule, call_by_lift
from schemas.regime import REGIMES, RG11

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Report = Callable[[float, str], None]

NAME = "regime_1h"
RECIPE = 1
"""Raised when the way from data to a card changes: nothing made another way counts as finished."""
PERIODS = ("walk_forward", "test", "holdout")


class Uncalibrated(Calibration, frozen=True):
    """Probabilities as the trees say them: a forest's leaves and stopped boosting are near enough."""

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return `probabilities`."""
        return probabilities


class Known(NamedTuple):
    """What is fixed before a period is judged."""

    shares: FloatArray
    """(5,) class shares of the rows before it."""
    rule_table: FloatArray
    """(5, 5) class shares after each call of the rule: the probabilities that the rule is given."""


class RegimeTraining:
    """The training of one regime model on one set of rows."""

    def __init__(
        self,
        rows: RegimeRows,
        out: Path,
        holdout: RegimeRows | None = None,
        options: TrainOptions | None = None,
        candidates: Sequence[RegimeFit] = CANDIDATES,
        report: Report = be_silent,
    ) -> None:
        """Plan the folds; of `options` the number of folds, the seed and the budget count.

        Raises:
            RecordingTooShortError: There are too few rows, or no regime in the holdout is known.
            ValueError: The holdout does not begin after the rows.
        """
        if holdout is not None and holdout.manifest.first_open_ns < rows.manifest.last_close_ns:
            msg = (
                f"holdout must begin after the training data; found one that begins at "
                f"{holdout.manifest.first_open_ns!r}, before {rows.manifest.last_close_ns!r}; choose "
                f"a later recording"
            )
            raise ValueError(msg)
        if holdout is not None and not len(holdout.usable):
            msg = "holdout must have rows of a known regime; found none; give a longer recording"
            raise RecordingTooShortError(msg)
        self.rows, self.holdout, self.folder = rows, holdout, out / NAME
        self._options = TrainOptions() if options is None else options
        self._candidates, self._seed, self._report = candidates, self._options.seed, report
        self._rule, usable = RegimeRule(), rows.usable
        self._plan = plan_walk_forward(
            usable,
            rows.close_times_ns[usable],
            rows.ends_ns[usable],
            self._options.folds,
            rows.labelling.horizon_bars * HOUR_NS,
        )
        self._inputs = rows.inputs.astype(np.float32)
        self._left_out: list[str] = []
        self.key = self._make_key()

    def run(self) -> TrainedModel:
        """Train, judge and write the model, or return it if it lies there finished.

        Raises:
            ParityError: What was exported is not what was trained; nothing is written.
            RecordingTooShortError: A period lacks a regime.
            OSError: It cannot be written; what was there stays.
        """
        known = self._find_finished()
        if known is not None:
            self._report(1.0, "kept")
            return TrainedModel(folder=self.folder, card=known, kept=True)
        started = time.monotonic()
        steps = len(self._plan.folds) + 1
        development = []
        for number, fold in enumerate(self._plan.folds):
            self._report(number / steps, fold.name)
            budget = self._options.budget_seconds
            spent = time.monotonic() - started
            if budget is not None and spent > budget * (1.0 - FINAL_BUDGET_SHARE):
                self._left_out.append(f"{fold.name}: time budget")
                continue
            fitted = self._fit(fold)
            development.append(self._judge(self.rows, fold, fold.test, fitted))
        self._report((steps - 1) / steps, "final")
        final = self._plan.final
        models = self._fit(final)
        periods = {"walk_forward": development} if development else {}
        chosen = self._choose(development, models)
        periods["test"] = [self._judge(self.rows, final, final.test, models)]
        if self.holdout is not None:
            later = self.holdout.usable
            periods["holdout"] = [self._judge(self.holdout, final, later, models)]
        scored = {name: score_callers(parts) for name, parts in periods.items()}
        card = self._write(chosen, models[chosen.name], scored, time.monotonic() - started)
        self._report(1.0, "done")
        return TrainedModel(folder=self.folder, card=card, kept=False)

    def _make_key(self) -> str:
        decisive = {
            "recipe": RECIPE,
            "data": self.rows.manifest.content_hash,
            "holdout": self.holdout.manifest.content_hash if self.holdout else "",
            "features": RG11.schema_hash,
            "label": self.rows.labelling.definition,
            "rule": self._rule.content_hash,
            "candidates": {one.name: one.parameters for one in self._candidates},
            "libraries": {lib: version(lib) for one in self._candidates for lib in one.libraries},
            "folds": self._options.folds,
            "seed": self._seed,
            "budget_seconds": self._options.budget_seconds,
        }
        return sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()[:16]

    def _find_finished(self) -> ModelCard | None:
        try:
            card = OnnxSession(self.folder).card if self.folder.is_dir() else None
        except ModelRefusedError:
            return None
        return card if card and card.training.get("key") == self.key else None

    def _fit(self, fold: Fold) -> dict[str, Fitted]:
        parts = [
            (self._inputs[part], self.rows.labels[part]) for part in (fold.train, fold.calibration)
        ]
        return {one.name: one.fit(parts[0], parts[1], self._seed) for one in self._candidates}

    def _know(self, fold: Fold) -> Known:
        before = np.concatenate([fold.train, fold.calibration])
        labels = self.rows.labels[before]
        calls = self._rule.call(self.rows.inputs[before]).codes
        count = len(REGIMES)
        # One row more of each class: nothing has no chance.
        table = np.bincount(calls * count + labels, minlength=count**2).reshape(count, count) + 1.0
        shares = np.bincount(labels, minlength=count) + 1.0
        return Known(shares / shares.sum(), table / table.sum(axis=1, keepdims=True))

    def _judge(
        self, rows: RegimeRows, fold: Fold, asked: IntArray, models: dict[str, Fitted]
    ) -> RegimePeriod:
        """Return what the rule and each model say of `asked`, knowing what lay before the period."""
        known = self._know(fold)
        codes = self._rule.call(rows.inputs[asked]).codes
        callers = {RULE: Caller(codes=codes, probabilities=known.rule_table[codes])}
        inputs = rows.inputs[asked].astype(np.float32)
        for name, model in models.items():
            found = model.probabilities(inputs)
            calls = call_by_lift(found, known.shares.tolist())
            callers[name] = Caller(codes=calls.codes, probabilities=found)
        return RegimePeriod(
            labels=rows.labels[asked],
            times_ns=rows.close_times_ns[asked],
            prior=known.shares,
            callers=callers,
        )

    def _choose(self, development: Sequence[RegimePeriod], models: dict[str, Fitted]) -> RegimeFit:
        """Return the candidate with the least log-loss before the final period."""
        if development:
            scored = score_callers(development)
            losses = {name: scored[name]["measures"]["log_loss"]["value"] for name in models}
        else:
            losses = {name: min(one.record.loss_calibration) for name, one in models.items()}
        return min(self._candidates, key=lambda one: losses[one.name])

    def _write(
        self,
        chosen: RegimeFit,
        fitted: Fitted,
        scored: dict[str, dict[str, dict[str, Any]]],
        wall_seconds: float,
    ) -> ModelCard:
        final = self._plan.final
        model = fitted.export()
        card = self._draft_card(chosen, model, fitted, final)
        session = open_session(card, model)
        known = np.concatenate([final.train, final.calibration, final.test])
        some = known[np.linspace(0, len(known) - 1, min(len(known), 12_000)).astype(np.int64)]
        exact = Uncalibrated(method="identity")
        parity = measure_parity(fitted, exact, session, self._inputs[some], self._seed)
        gains = [scored[name][chosen.name]["measures"]["gain"] for name in scored]
        shares = self._know(final).shares.tolist()
        training = card.training | {
            "class_shares": shares,
            "wall_seconds": round(wall_seconds, 1),
            "split_rows": final.sizes(),
            "folds": {fold.name: fold.sizes() for fold in self._plan.folds},
            "record": asdict(fitted.record),
            "left_out": self._left_out,
        }
        card = replace(
            card,
            training=round_figures(training) | {"class_shares": shares},
            evaluation=round_figures({"interval_method": INTERVAL_METHOD} | scored),
            beats_prior=all(one["interval_95"][0] > 0.0 for one in gains),
            gate=round_figures(judge_regime(parity, chosen.name, scored)),
        )
        return write_artefact(self.folder, card, model)

    def _draft_card(
        self, chosen: RegimeFit, model: bytes, fitted: Fitted, final: Fold
    ) -> ModelCard:
        sample = self._inputs[final.calibration[:SELF_TEST_ROWS]]
        opsets = {
            one.domain: one.version for one in onnx.load_model_from_string(model).opset_import
        }
        model_hash, labelling = sha256(model).hexdigest(), self.rows.labelling
        return ModelCard(
            name=NAME,
            version=f"1.{model_hash[:8]}",
            timeframe="1h",
            feature_schema=RG11.name,
            feature_schema_hash=RG11.schema_hash,
            input_view="what operators.regime.regime_inputs returns, float32",
            classes=REGIME_CLASSES,
            opset=max(opsets.get("", 0), 15),
            files={MODEL_NAME: model_hash},
            self_test_inputs=sample.astype(np.float64).tolist(),
            self_test_probabilities=fitted.probabilities(sample).tolist(),
            training={
                "key": self.key,
                "data": asdict(self.rows.manifest),
                "label": labelling.definition,
                "horizon_bars": labelling.horizon_bars,
                "embargo_bars": labelling.horizon_bars,
                "seed": self._seed,
                "candidates": [one.name for one in self._candidates],
                "parameters": chosen.parameters,
                "libraries": {name: version(name) for name in chosen.libraries},
            },
            evaluation={},
            beats_prior=False,
            beats_prior_of_direction=False,
            family=chosen.name,
            horizon_bars=labelling.horizon_bars,
            input_shape=RG11.input_shape,
            calibration={"method": "identity"},
        )


def judge_regime(
    parity: Parity, name: str, scored: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Return what is required of a regime model before it may serve, what was found, and `passed`.

    `reason` says in words what serves and why.
    """
    checks = check_parity(parity)
    for period, callers in scored.items():
        for measure in ("accuracy", "balanced_accuracy"):
            difference = callers[name]["less_rule"][measure]
            low = difference["interval_95"][0]
            rule = "lower end of the interval of the difference to the rule > 0"
            checks[f"{period}_{measure}_less_rule"] = check(low, rule, passed=low > 0.0)
    worse = [period for period, callers in scored.items() if not is_better(callers[name])]
    passed = all(one["passed"] for one in checks.values())
    reason = (
        f"{name} serves: right more often than the rule in {', '.join(scored)}, over all rows and "
        f"per class"
        if passed
        else f"the rule serves: {name} is not surely better in {', '.join(worse) or 'parity rows'}"
    )
    return {"passed": passed, "reason": reason, "checks": checks}
