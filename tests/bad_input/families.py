"""All families of cases: functions from the ground to cases."""

from collections.abc import Callable, Iterator

from tests.bad_input import beside, commands, configs, labels, models, notes, runs
from tests.bad_input.case import Case
from tests.bad_input.ground import Ground

Family = Callable[[Ground], Iterator[Case]]
FAMILIES: tuple[Family, ...] = (
    *(configs.fields, configs.texts, configs.names_and_uris, configs.conflicts, configs.drawn),
    *(notes.files_of_notes, notes.single_notes, notes.drawn_tables),
    *(labels.labels, labels.tasks, beside.spans, beside.terms),
    *(models.folders, models.adapters, models.imported),
    *(runs.damaged, runs.of_earlier_versions, runs.records, runs.strange, runs.exports),
    *(commands.lines, commands.spaces, commands.projects, commands.looking),
)
