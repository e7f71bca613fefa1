"""One model from data to decision: walk-forward, fit, calibration, ONNX, parity, gate, card."""

import time
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import asdict, replace

from infra.onnx_session import ModelCard, ModelRefusedError, OnnxSession
from onnx_models.artefact import (
    SELF_TEST_ROWS,
    Parity,
    build_model,
    draft_card,
    judge_gate,
    measure_parity,
    open_session,
    write_artefact,
)
from onnx_models.calibration import Calibration, fit_calibration
from onnx_models.dataset import DataSet
from onnx_models.evaluation import (
    Judged,
    Yardstick,
    evaluate,
    reliability,
    round_figures,
    shorten,
)
from onnx_models.families import Family, FitRequest, Fitted, FloatArray, IntArray, be_silent
from onnx_models.fold_files import FoldResult, load_fold, save_fold
from onnx_models.importance import rank_inputs
from onnx_models.periods import (
    BaselineBench,
    FixedBaseline,
    answer_rows,
    fix_yardstick,
    read_outcomes,
)
from onnx_models.walk_forward import Fold, plan_data_set

RECIPE = 3
"""Raised when the way from data to a card changes: nothing made another way counts as finished."""
FINAL_BUDGET_SHARE = 0.4
"""Part of the time budget for the fit that is served; the folds share the rest."""
CURVE_POINTS_MAX = 50
"""Most points of a loss curve on the card."""
FOLDS_FOLDER = ".folds"

Report = Callable[[float, str], None]


class TrainOptions(Struct, frozen=True, kw_only=True):
    """What a user chooses."""

    horizon_bars: int = 4
    folds: int = 4
    seed: int = 7
    budget_seconds: float | None = None
    device: str = "cpu"


class TrainedModel(Struct, frozen=True, kw_only=True):
    """A model and where it lies."""

    folder: Path
    card: ModelCard
    kept: bool
    """Whether it was found finished and not made again."""


class Part(NamedTuple):
    """Rows that a model was judged on, and the fold whose earlier rows it knew."""

    fold: Fold
    data: DataSet
    rows: IntArray
    judged: Judged


class Training:
    """The training of one family on one data set."""

    def __init__(
        self,
        family: Family,
        data: DataSet,
        options: TrainOptions,
        out: Path,
        holdout: DataSet | None = None,
        bench: BaselineBench | None = None,
        report: Report = be_silent,
    ) -> None:
        """Plan the folds.

        Raises:
            ValueError: There are too few rows, the horizon is not labelled, or the holdout does not
                begin after the data.
        """
        _refuse_overlap(data, holdout)
        if options.horizon_bars not in data.targets:
            msg = (
                f"horizon must be labelled; found {options.horizon_bars!r} bars; choose from "
                f"{sorted(data.targets)!r}"
            )
            raise ValueError(msg)
        self.family, self.data, self.options, self.holdout = family, data, options, holdout
        self.folder = out / f"{family.name}_1h"
        self._folds_folder = out / FOLDS_FOLDER
        self._bench = bench or BaselineBench()
        self._report = report
        self._reader = data.reader(family.schema)
        self._plan = plan_data_set(data, family.schema, options.horizon_bars, options.folds)
        self._started = time.monotonic()
        self._left_out: list[str] = []
        self.key = self._make_key()

    def run(self) -> TrainedModel:
        """Train, judge and write the model, or return it if it lies there finished.

        Raises:
            ParityError: What was exported is not what was trained; nothing is written.
            OSError: It cannot be written; what was there stays.
        """
        known = self._find_finished()
        if known is not None:
            self._report(1.0, "kept")
            return TrainedModel(folder=self.folder, card=known, kept=True)
        final = self._plan.final
        fitted, calibration = self._fit(final, self._final_budget(), 0)
        # The folds change nothing in the model: they tell how such models did before, and the final
        # period is looked at after all of it.
        folds = self._run_folds()
        answers = answer_rows(
            self._reader, final.calibration, lambda x: calibration.apply(fitted.probabilities(x))
        )
        yardstick = self._fix_yardstick(final, answers)
        model = build_model(fitted, calibration)
        sample = self._reader.take(final.calibration[:SELF_TEST_ROWS])
        card = draft_card(
            self.family, model, self.options.horizon_bars, sample, answers[:SELF_TEST_ROWS]
        )
        session = open_session(card, model)
        parity = self._measure_parity(fitted, calibration, session)
        self._report(0.95, "judging")
        evaluation = self._judge(session, fitted, yardstick, folds, parity)
        card = self._complete_card(card, fitted, calibration, evaluation, parity)
        card = write_artefact(self.folder, card, model)
        self._report(1.0, "done")
        return TrainedModel(folder=self.folder, card=card, kept=False)

    def _make_key(self) -> str:
        """Return the hash of everything that decides the model and its figures."""
        decisive = {
            "recipe": RECIPE,
            "data": self.data.manifest.content_hash,
            "holdout": self.holdout.manifest.content_hash if self.holdout else "",
            "input_schema": self.family.schema.schema_hash,
            "features": self.data.manifest.feature_schema_hash,
            "label": self.data.targets[self.options.horizon_bars].labelling.definition,
            "family": self.family.name,
            "parameters": self.family.parameters,
            "libraries": {name: version(name) for name in self.family.libraries},
            "options": asdict(self.options),
        }
        return sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()[:16]

    def _find_finished(self) -> ModelCard | None:
        try:
            card = OnnxSession(self.folder).card if self.folder.is_dir() else None
        except ModelRefusedError:
            return None
        return card if card and card.training.get("key") == self.key else None

    def _fit(
        self, fold: Fold, budget_seconds: float | None, number: int
    ) -> tuple[Fitted, Calibration]:
        fits = len(self._plan.folds) + 1

        def report(share: float, note: str) -> None:
            self._report(0.95 * (number + min(share, 1.0)) / fits, f"{fold.name}: {note}")

        fitted = self.family.fit(
            FitRequest(
                data=self.data,
                horizon_bars=self.options.horizon_bars,
                train=fold.train,
                calibration=fold.calibration,
                seed=self.options.seed,
                budget_seconds=budget_seconds,
                device=self.options.device,
                report=report,
            )
        )
        raw = answer_rows(self._reader, fold.calibration, fitted.probabilities)
        labels = self.data.targets[self.options.horizon_bars].labels[fold.calibration]
        times = self.data.close_times_ns[fold.calibration]
        return fitted, fit_calibration(raw, labels, times)

    def _run_folds(self) -> list[tuple[Fold, FoldResult]]:
        """Return every fold that the time budget allows, in order of time."""
        found = []
        for number, fold in enumerate(self._plan.folds):
            path = self._folds_folder / f"{self.family.name}_{self.key}_{fold.name}.npz"
            result = load_fold(path, len(fold.test))
            if result is None:
                budget = self._remaining_seconds()
                if budget is not None and budget <= 0.0:
                    self._left_out.append(f"{fold.name}: time budget")
                    continue
                share = None if budget is None else budget / (len(self._plan.folds) - number)
                result = self._run_fold(fold, share, number + 1)
                save_fold(path, result)
            self._left_out += [f"{fold.name}: {one}" for one in result.record.left_out]
            found.append((fold, result))
        return found

    def _run_fold(self, fold: Fold, budget_seconds: float | None, number: int) -> FoldResult:
        fitted, calibration = self._fit(fold, budget_seconds, number)

        def answer(rows: IntArray) -> FloatArray:
            return answer_rows(
                self._reader, rows, lambda x: calibration.apply(fitted.probabilities(x))
            )

        return FoldResult(
            probabilities=answer(fold.test),
            expected_returns=self._expect(fitted, self.data, fold.test),
            yardstick=self._fix_yardstick(fold, answer(fold.calibration)),
            record=fitted.record,
        )

    def _fix_yardstick(self, fold: Fold, answers: FloatArray) -> Yardstick:
        return fix_yardstick(
            self.data, self.options.horizon_bars, fold.train, fold.calibration, answers
        )

    def _expect(self, fitted: Fitted, data: DataSet, rows: IntArray) -> FloatArray | None:
        reader = data.reader(self.family.schema)
        if fitted.expected_returns(reader.take(rows[:1])) is None:
            return None
        return answer_rows(reader, rows, lambda x: np.asarray(fitted.expected_returns(x)))

    def _measure_parity(
        self, fitted: Fitted, calibration: Calibration, session: OnnxSession
    ) -> Parity:
        final = self._plan.final
        rows = np.concatenate([final.train, final.calibration, final.test])
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), 12_000)).astype(np.int64)]
        inputs = self._reader.take(some)
        return measure_parity(fitted, calibration, session, inputs, self.options.seed)

    def _judge(
        self,
        session: OnnxSession,
        fitted: Fitted,
        yardstick: Yardstick,
        folds: list[tuple[Fold, FoldResult]],
        parity: Parity,
    ) -> dict[str, Any]:
        final = self._plan.final
        periods = self._read_periods(session, fitted, yardstick, folds)
        found: dict[str, Any] = {
            name: evaluate([part.judged for part in parts]) for name, parts in periods.items()
        }
        if self.holdout is not None:
            found["holdout"]["data"] = asdict(self.holdout.manifest)
        found["baselines"] = {name: self._judge_baselines(parts) for name, parts in periods.items()}
        found["reliability"] = {
            name: reliability(
                np.concatenate([part.judged.probabilities for part in parts]),
                np.concatenate([part.judged.outcomes.labels for part in parts]),
            )
            for name, parts in periods.items()
        }
        labels = self.data.targets[self.options.horizon_bars].labels[final.test]
        found["importance"] = rank_inputs(
            session, self._reader.take(final.test), labels, self.family.schema.names
        )
        found["yardstick"] = asdict(yardstick)
        found["parity_max"], found["parity_rows"] = parity.difference_max, parity.rows
        return found

    def _read_periods(
        self,
        session: OnnxSession,
        fitted: Fitted,
        yardstick: Yardstick,
        folds: list[tuple[Fold, FoldResult]],
    ) -> dict[str, list[Part]]:
        """Return what the model said of each period: of folds their own, of the rest the served one."""
        horizon, final = self.options.horizon_bars, self._plan.final
        periods: dict[str, list[Part]] = {}
        if folds:
            periods["walk_forward"] = [
                Part(fold, self.data, fold.test, self._judged_fold(fold, result))
                for fold, result in folds
            ]
        asked = [("test", self.data, final.test)]
        if self.holdout is not None:
            rows = self.holdout.usable_rows(horizon, self.family.schema)
            asked.append(("holdout", self.holdout, rows))
        for name, data, rows in asked:
            judged = Judged(
                probabilities=answer_rows(data.reader(self.family.schema), rows, session.score),
                outcomes=read_outcomes(data, horizon, rows),
                yardstick=yardstick,
                expected_returns=self._expect(fitted, data, rows),
            )
            periods[name] = [Part(final, data, rows, judged)]
        return periods

    def _judged_fold(self, fold: Fold, result: FoldResult) -> Judged:
        return Judged(
            probabilities=result.probabilities,
            outcomes=read_outcomes(self.data, self.options.horizon_bars, fold.test),
            yardstick=result.yardstick,
            expected_returns=result.expected_returns,
        )

    def _judge_baselines(self, parts: list[Part]) -> dict[str, dict[str, Any]]:
        """Return what is known of each baseline on the very same rows."""
        judged: dict[str, list[Judged]] = {}
        for part in parts:
            for name, fixed in self._fit_baselines(part.fold).items():
                judged.setdefault(name, []).append(fixed.judge(part.data, part.rows))
        return {name: shorten(evaluate(one)) for name, one in judged.items()}

    def _fit_baselines(self, fold: Fold) -> dict[str, FixedBaseline]:
        horizon = self.options.horizon_bars
        return self._bench.fit(self.data, horizon, fold.train, fold.calibration)

    def _complete_card(
        self,
        card: ModelCard,
        fitted: Fitted,
        calibration: Calibration,
        evaluation: dict[str, Any],
        parity: Parity,
    ) -> ModelCard:
        record, final = fitted.record, self._plan.final
        judged = [evaluation[name] for name in ("test", "holdout") if name in evaluation]
        baselines = msgspec.to_builtins(self._fit_baselines(final))
        training = card.training | {
            "key": self.key,
            "data": asdict(self.data.manifest),
            "label": self.data.targets[self.options.horizon_bars].labelling.definition,
            "horizon_bars": self.options.horizon_bars,
            "split_rows": final.sizes(),
            "folds": {fold.name: fold.sizes() for fold in self._plan.folds},
            "embargo_bars": self.options.horizon_bars,
            "seed": self.options.seed,
            "parameters": record.parameters,
            "wall_seconds": round(record.wall_seconds, 1),
            "rounds": len(record.loss_calibration),
            "best_round": record.best_round,
            "loss_train": _thin(record.loss_train),
            "loss_calibration": _thin(record.loss_calibration),
            "left_out": record.left_out + self._left_out,
            "details": record.details,
        }
        return replace(
            card,
            training=round_figures(training) | {"baselines": baselines},
            # What is computed with again keeps every digit.
            evaluation=round_figures(evaluation) | {"yardstick": evaluation["yardstick"]},
            beats_prior=all(one["beats_prior"] for one in judged),
            beats_prior_of_direction=all(one["beats_prior_of_direction"] for one in judged),
            calibration=asdict(calibration),
            gate=round_figures(judge_gate(parity, evaluation["test"]["spread"])),
        )

    def _remaining_seconds(self) -> float | None:
        limit = self.options.budget_seconds
        return None if limit is None else limit - (time.monotonic() - self._started)

    def _final_budget(self) -> float | None:
        limit = self.options.budget_seconds
        if limit is None:
            return None
        return limit * FINAL_BUDGET_SHARE if self._plan.folds else limit


def _thin(curve: list[float]) -> list[float]:
    """Return at most `CURVE_POINTS_MAX` points of a curve, first and last among them."""
    chosen = np.linspace(0, len(curve) - 1, min(len(curve), CURVE_POINTS_MAX)).astype(np.int64)
    return [round(curve[i], 6) for i in chosen]


def _refuse_overlap(data: DataSet, holdout: DataSet | None) -> None:
    if holdout is not None and holdout.manifest.first_open_ns < data.manifest.last_close_ns:
        msg = (
            f"holdout must begin after the training data; found one that begins at "
            f"{holdout.manifest.first_open_ns!r}, before {data.manifest.last_close_ns!r}; choose a "
            f"later recording"
        )
        raise ValueError(msg)
