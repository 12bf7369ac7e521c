"""Rounds of a search: suggestions, trials and the arms that pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from instil.search.arms import Arm, base_data
from instil.search.duplicates import duplicate_candidates
from instil.search.execution import OnResult, execute
from instil.search.frontier import comparable_sizes, order_by_front
from instil.search.limits import smallest_file
from instil.search.prior import order_with_prior
from instil.search.rounds import Rung
from instil.search.sampling import draw_arms, suggest
from instil.search.state import State
from instil.search.trainer import Trainer
from instil.search.trials import Trial, make_trial

Results = list[dict[str, Any]]


class Study:
    """A search that trains its trials round after round.

    Args:
        state: settings, arms and schedule.
        trainer: trains the trials.
        num_jobs: number of processes.
        on_result: called with every result.

    Attributes:
        results: results of all trials so far.
        earlier: results of an earlier phase with other arms.
        notes: sentences on rounds that were left out.
        late_arms: students that joined the last round, all of them finalists.
    """

    def __init__(self, state: State, trainer: Trainer, num_jobs: int, on_result: OnResult) -> None:
        self.state = state
        self.trainer = trainer
        self.num_jobs = num_jobs
        self.on_result = on_result
        self.results: Results = []
        self.earlier: Results = []
        self.notes: list[str] = []
        self.late_arms: list[Arm] = []
        recipe = trainer.experiment.recipe
        self.base = base_data(recipe)
        self.seed = recipe.seeds[0]
        self.final_seeds = [max(recipe.seeds) + 1 + i for i in range(state.settings.num_seeds)]
        self.higher_is_better = trainer.experiment.task.higher_is_better

    def followed_by(self, state: State) -> Study:
        """Return the study of a second phase, with other arms in the same folder."""
        study = Study(state, self.trainer, self.num_jobs, self.on_result)
        study.earlier = self.results
        study.notes = self.notes
        return study

    def run_rounds(self) -> list[Arm]:
        """Train all rounds; return the arms of the last one, the best candidates first."""
        arms = list(self.state.arms)
        # The rounds of a second phase have numbers of their own.
        start = 1 + max((result["round"] for result in self.earlier), default=-1)
        for index, rung in enumerate(self.state.schedule.rungs, start):
            if index > start and self.is_late():
                self.notes.append(f"The time was used up after {index} rounds")
                break
            if self.state.settings.strategy == "random":
                arms = self._random_round(arms, rung)
            else:
                arms = self._halving_round(self._promoted(arms, rung), index, rung)
                arms = self._distinct(arms, index)
        return self.ranked(arms)

    def train_finalists(self, arms: Sequence[Arm]) -> Results:
        """Train the best configuration of each arm with new seeds."""
        steps = self.state.schedule.final_steps
        trials = []
        for arm in arms:
            params = self.best_params(arm)
            trials += [self._trial(arm, params, -1, steps, seed) for seed in self.final_seeds]
        return self._execute(trials)

    def best_params(self, arm: Arm) -> dict[str, Any]:
        """Return the values of the best trial of an arm in its last round."""
        own = [result for result in self.results if result["arm"] == arm.name]
        last = max((result["round"] for result in own), default=0)
        own = [result for result in own if result["round"] == last]
        if not own:
            return arm.defaults()
        params: dict[str, Any] = max(own, key=self._key)["params"]
        return params

    def join_last_round(self, arm: Arm, neighbour: Arm) -> None:
        """Train a further student as those of the last round, and make it a finalist.

        Args:
            arm: the student.
            neighbour: student of the last round, whose best options the training has.
        """
        self.late_arms.append(arm)
        index = max(result["round"] for result in self.results)
        params = self.best_params(neighbour)
        self.state = replace(self.state, arms=(*self.state.arms, arm))
        steps = self.state.schedule.rungs[-1].num_steps
        self._execute([self._trial(arm, params, index, steps, self.seed)])

    def finalists(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return the best candidates, the students that joined late and all reference arms."""
        late = self.late_arms
        candidates = [arm for arm in arms if not arm.is_reference and arm not in late]
        references = [arm for arm in self.state.arms if arm.is_reference]
        return [*candidates[: self.state.schedule.num_finalists], *late, *references]

    def _halving_round(self, arms: list[Arm], index: int, rung: Rung) -> list[Arm]:
        """Train the same number of trials of every arm, in two parts."""
        # Over seeds, each round has one of its own, which no final training has.
        is_over_seeds = self.state.settings.strategy == "seeds" and index > 0
        seed = self.final_seeds[-1] + index if is_over_seeds else self.seed
        first: list[Trial] = []
        second: list[tuple[Arm, dict[str, Any]]] = []
        for arm in arms:
            params = [self.best_params(arm), *self._suggestions(arm, rung.num_trials // 2)]
            first += [self._trial(arm, one, index, rung.num_steps, seed) for one in params]
        finished = self._execute(first)
        num_left = rung.num_trials - 1 - rung.num_trials // 2
        for arm in arms:
            second += [(arm, one) for one in self._suggestions(arm, num_left)]
        # Trials of the second part end early if they are far behind those of the first. A student
        # that is not trained, as of random_init, has no curve.
        complete = [result for result in finished if result["status"] == "complete"]
        rivals = [result["curve"] for result in complete if result["curve"]]
        self._execute(
            [self._trial(arm, one, index, rung.num_steps, seed, rivals) for arm, one in second]
        )
        return arms

    def _distinct(self, arms: Sequence[Arm], index: int) -> list[Arm]:
        """Return the arms without candidates that train the same student as another arm."""
        settings = self.state.settings
        # With other options, or as another student or teacher, two arms may differ later.
        if settings.has_options or settings.has_students or settings.has_teachers:
            return list(arms)
        results = [result for result in self.results if result["round"] == index]
        leaving = set()
        for first, names in duplicate_candidates(results, arms).items():
            self.notes.append(
                f"{', '.join(names)} left after round {index + 1}: the same student as {first}"
            )
            leaving |= set(names)
        return [arm for arm in arms if arm.is_reference or arm.name not in leaving]

    def _random_round(self, arms: list[Arm], rung: Rung) -> list[Arm]:
        """Train arms and options that are drawn at random."""
        settings = self.state.settings
        candidates = [arm for arm in arms if not arm.is_reference]
        drawn = draw_arms(candidates, rung.num_candidates, settings.has_options, settings.seed)
        trials = []
        for arm in arms:
            count = 1 if arm.is_reference else drawn.count(arm)
            params = self._suggestions(arm, count) or [arm.defaults()] * min(count, 1)
            trials += [self._trial(arm, one, 0, rung.num_steps, self.seed) for one in params]
        self._execute(trials)
        return [arm for arm in arms if arm.is_reference or arm in drawn]

    def _suggestions(self, arm: Arm, count: int) -> list[dict[str, Any]]:
        settings = self.state.settings
        sampler = "random" if settings.strategy == "random" else settings.sampler
        return suggest(arm, self.results, count, self.higher_is_better, sampler, settings.seed)

    def _promoted(self, arms: Sequence[Arm], rung: Rung) -> list[Arm]:
        """Return the best candidates so far and all reference arms."""
        ranked = self.ranked(arms) if self.results else list(arms)
        candidates = [arm for arm in ranked if not arm.is_reference][: rung.num_candidates]
        return [arm for arm in self.state.arms if arm.is_reference or arm in candidates]

    def ranked(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return arms by the best score of their last round, students by score and file size."""
        best = self.scores(arms)
        if self.state.settings.has_students:
            limits = self.state.settings.limits
            sizes = {arm.name: smallest_file(arm.costs, limits) for arm in arms}
            order = order_by_front(best, comparable_sizes(sizes))
            return sorted(arms, key=lambda arm: order.index(arm.name))
        if self.state.settings.has_prior and self._is_short_round():
            # The arms of the state are in the order of their prior.
            return order_with_prior([arm for arm in self.state.arms if arm in arms], best)
        return sorted(arms, key=lambda arm: -best[arm.name])

    def _is_short_round(self) -> bool:
        """Whether the trainings of the last round had fewer steps than those of the finalists."""
        steps = max((result["num_steps"] for result in self.results), default=0)
        return steps < self.state.schedule.final_steps

    def scores(self, arms: Sequence[Arm]) -> dict[str, float]:
        """Return the best score of each arm in the last round, or the mean of all over seeds."""
        last = max((result["round"] for result in self.results), default=0)
        best = {}
        for arm in arms:
            own = [
                self._key(result)
                for result in self.results
                if result["arm"] == arm.name and result["round"] == last
            ]
            best[arm.name] = max(own, default=float("-inf"))
            if own and self.state.settings.strategy == "seeds":
                every = [self._key(one) for one in self.results if one["arm"] == arm.name]
                best[arm.name] = sum(every) / len(every)
        return best

    def _key(self, result: dict[str, Any]) -> float:
        """Score of a result such that higher is better; a failed trial is the worst."""
        if result["score"] is None:
            return float("-inf")
        # A stopped trial has the score of fewer steps and never passes a complete one.
        score = float(result["score"]) * (1 if self.higher_is_better else -1)
        return score if result["status"] == "complete" else score - 1e9

    def _trial(
        self,
        arm: Arm,
        params: dict[str, Any],
        index: int,
        num_steps: int,
        seed: int,
        rivals: list[list[list[float]]] | None = None,
    ) -> Trial:
        num_folds = self.state.settings.num_folds
        return make_trial(
            self.base, arm, params, index, num_steps, seed, self.state.data_hash, rivals, num_folds
        )

    def _execute(self, trials: list[Trial]) -> Results:
        results = execute(self.trainer, trials, self.num_jobs, self.on_result)
        self.results += results
        return results

    def is_late(self) -> bool:
        """Whether the trainings have used the time of the search."""
        limit = self.state.settings.max_seconds
        # From the results and the first start, so that all processes of a search decide the same.
        used = sum(result["seconds"] for result in self.results) / self.state.num_jobs
        return limit is not None and used > limit
