"""What each arm of a comparison on generated notes makes of words that no label has shown it.

    python benchmarks/forms.py --config jobs/configs/compare_small.yaml     after `raypipe compare` with the same config

AUC of the notes that mention a finding as present against notes that do not mention it, by the form of the mention:
`common`, `local` (in some labelled note) or unseen (in unlabelled notes only: what a method could learn that labels
lack). `hinted`: unseen, with a modifier beside it that stands in labelled notes; `bare`: unseen and nothing else. Means
over seeds and fine-tunings; intervals over notes and seeds, as those of the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluation.resampling import group_weights
from raypipe.evaluation.uncertainty import seed_weights
from raypipe.findings import results
from raypipe.notes.synthetic import TASK_FINDINGS, YES
from raypipe.runs import compare
from raypipe.runs.run import Run
from raypipe.settings import configfile

F32 = npt.NDArray[np.float64]
Key = tuple[str, str]  # note and task
FORMS = ("common", "local", "hinted", "bare")
N_BOOTSTRAP = 4000


def forms_of(run: Run) -> dict[Key, str]:
    """The form of every mention in a labelled note, whatever its status."""
    text = {row["note_id"]: row["text"] for row in pq.read_table(run.corpus.labelled_path).to_pylist()}
    labels = run.corpus.labels.select(["note_id", "split"]).to_pylist()
    shown = " ".join(text[note_id] for note_id in {row["note_id"] for row in labels if row["split"] == "train"})
    finding_of = {finding.task_id: finding for finding in TASK_FINDINGS}
    found: dict[Key, str] = {}
    for row in pq.read_table(run.corpus.deciding_path).to_pylist():  # of a cue and a finding, the finding comes last
        if row["note_id"] in text:
            note, finding = text[row["note_id"]], finding_of[row["task_id"]]
            said, rest = note[row["start"] : row["end"]], note[row["end"] + 1 :]
            unseen = "hinted" if rest.startswith(finding.modifiers) else "bare"
            form = "common" if said in finding.common else "local" if said in shown else unseen
            found[row["note_id"], row["task_id"]] = form
    return found


def above(table: pa.Table, present: list[Key], unmentioned: list[Key]) -> F32:
    """For each present mention [P], the share of unmentioned ones that score lower: their mean is the AUC."""
    score = {(row["note_id"], row["task_id"]): row["scores"][0] - row["scores"][1] for row in table.to_pylist()}
    ranked_N, score_P = np.sort([score[key] for key in unmentioned]), np.asarray([score[key] for key in present])
    sides = (np.searchsorted(ranked_N, score_P, side) for side in ("left", "right"))
    return np.asarray(sum(sides) / (2 * len(ranked_N)))


def interval(above_SP: F32, present: list[Key], form_P: npt.NDArray[np.bool_]) -> str:
    """Mean and 95 % interval in points when notes and seeds vary."""
    _, note_P = np.unique([note_id for note_id, _ in present], return_inverse=True)
    weight_BP = group_weights(np.random.default_rng(0), N_BOOTSTRAP, note_P.max() + 1)[:, note_P] * form_P
    weight_BS = seed_weights(N_BOOTSTRAP, range(len(above_SP)), seed=0)
    drawn_B = np.einsum("bp,bs,sp->b", weight_BP, weight_BS, above_SP) / weight_BP.sum(axis=1)
    low, high = 100 * np.nanpercentile(drawn_B, [2.5, 97.5])
    return f"{100 * above_SP[:, form_P].mean():5.1f} [{low:5.1f}, {high:5.1f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    run = Run(configfile.load(options.config, options.overrides))
    runs, _ = compare.by_budget(compare.opened(run))
    if not runs or run.settings.data.source != "synthetic":
        raise SystemExit("error: this needs a finished comparison on generated notes")
    pooled, form_of = results.predictions(runs, run.corpus.tasks), forms_of(runs[0])
    (first, *_) = pooled.tables.values()
    asked = {(row["note_id"], row["task_id"]): row["label"] for row in first[0].to_pylist()}
    present = [key for key, label in asked.items() if label == YES]
    unmentioned = [key for key, label in asked.items() if label != YES and key not in form_of]
    form_of_P = np.asarray([form_of[key] for key in present])
    found: dict[str, F32] = {}
    for arm, tables in pooled.tables.items():
        of_run = [above(table, present, unmentioned) for table in tables]
        seeds = sorted(set(pooled.seeds[arm]))
        of_seed = [[run for run, s in zip(of_run, pooled.seeds[arm], strict=True) if s == seed] for seed in seeds]
        found[arm] = np.asarray([np.mean(runs, axis=0) for runs in of_seed])
    counts = ", ".join(f"{form} {(form_of_P == form).sum()}" for form in FORMS)
    print(f"present mentions: {counts}; notes without a mention: {len(unmentioned)}")
    heads = [*FORMS, "hinted, less the first", "bare, less the first"]
    print(f"{'arm':18}" + "".join(f"{head:>24}" for head in heads))
    (reference, *_) = found
    for arm, above_SP in found.items():
        cells = [interval(above_SP, present, form_of_P == form) for form in FORMS]
        if arm != reference:
            less_SP = above_SP - found[reference]
            cells += [interval(less_SP, present, form_of_P == form) for form in FORMS[2:]]
        print(f"{arm:18}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
