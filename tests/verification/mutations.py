"""The invariants, what guards each, which tests hold it, and mutations that those tests must kill.

    make mutations            all of them (minutes); ARGS='pace freeze' only those named so
    make mutations ARGS=--doc print the table of docs/invariants.md

A mutation takes one guard away: a replacement of one text that stands once in one source file. It
is tried in a copy of the tree. That each still applies, and that the document says the same, is
checked by test_invariants.py in every run of the tests; that each is killed is checked here.
"""

from __future__ import annotations

import ast
import builtins
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One guard taken away. `tests` are pytest's names of those that fail then, one at least."""

    invariant: int
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """An invariant in a few words, and what guards it, as `module:function`."""

    number: int
    words: str
    guards: tuple[str, ...]


INVARIANTS = (
    Invariant(
        number=1,
        words="Unknown is not empty",
        guards=(
            "ds01d.decide.verdict:decide_verdict",
            "ds01d.decide.plausibility:check_plausible",
            "ds01d.adapters.nvml.reading_checks:find_corruption",
            "ds01d.adapters.host.cgroup_paths:find_container",
            "ds01d.adapters.books.metadata_dir:read",
            "ds01d.adapters.docker.engine:observe",
            "ds01d.decide.docker_books:explain_incomplete",
            "ds01d.decide.device_use:find_use",
        ),
    ),
    Invariant(
        number=2,
        words="What lives or is being created keeps its booking",
        guards=("ds01d.decide.verdict:_decide_living", "ds01d.decide.creations:find_creation_end"),
    ),
    Invariant(
        number=3,
        words="No release without proof, and that once more before the write",
        guards=(
            "ds01d.decide.absence:decide_absent",
            "ds01d.decide.liveness:describe_living",
            "ds01d.decide.docker_books:_find_holdings",
            "ds01d.reconcile.confirm:confirm_drifts",
        ),
    ),
    Invariant(
        number=4,
        words="Waiting is counted on CLOCK_BOOTTIME from the first sight",
        guards=(
            "ds01d.decide.deadlines:anchor_time",
            "ds01d.decide.checkpoint_clock:_carry_over_boot",
        ),
    ),
    Invariant(
        number=5,
        words="Unclear limits end no hold",
        guards=(
            "ds01d.adapters.books.hold_durations:parse_hold",
            "ds01d.adapters.books.limits_rules:_find_rule",
            "ds01d.decide.retention:decide_stopped",
        ),
    ),
    Invariant(number=6, words="Pace", guards=("ds01d.decide.pace:find_over_limit",)),
    Invariant(
        number=7,
        words="The same engine, a steady inventory",
        guards=("ds01d.decide.engine_identity:engine_differences", "ds01d.decide.gate:_find_wait"),
    ),
    Invariant(
        number=8,
        words="Atomic writes under a lock; nobody's booking is lost to them",
        guards=(
            "ds01d.adapters.files.atomic_write:replace_file",
            "ds01d.adapters.files.syncs:sync",
            "ds01d.adapters.files.file_lock:__enter__",
            "ds01d.adapters.books.late_writers:keep_replaced",
            "ds01d.adapters.books.state_merge:added_to",
        ),
    ),
    Invariant(
        number=9,
        words="No history, no action; metrics that fail stop nothing",
        guards=(
            "ds01d.reconcile.repair:_write_change",
            "ds01d.reconcile.history_entries:begin_entries",
            "ds01d.daemon.pass_metrics:_never_raises",
            "ds01d.reconcile.recovery:close_by_books",
            "ds01d.decide.undo_choice:choose_change",
            "ds01d.daemon.accounting:record_pass",
        ),
    ),
    Invariant(
        number=10,
        words="One bad record stops no other; a broken state is rebuilt late and whole",
        guards=(
            "ds01d.decide.decision:_decide_rebuild",
            "ds01d.adapters.books.metadata_reader:_parse_file",
        ),
    ),
    Invariant(
        number=11,
        words="A second pass finds nothing due; a killed one is finished",
        guards=(
            "ds01d.decide.expected_books:render_books",
            "ds01d.reconcile.reconciler:_repair_due",
            "ds01d.adapters.accounting_database:transaction",
        ),
    ),
    Invariant(
        number=12,
        words="Names are untrusted",
        guards=(
            "ds01d.adapters.books.metadata_listing:is_file_name",
            "ds01d.adapters.files.safe_read:open_file",
            "ds01d.adapters.alerts_folder:add",
            "ds01d.adapters.books.events_file:format_event",
            "ds01d.adapters.books.operations_format:escape_field",
            "ds01d.folders:open_folder",
            "ds01d.adapters.host.run_as_owner:act_as_owner",
            "ds01d.adapters.books.state_format:_refuse_many",
        ),
    ),
    Invariant(
        number=13,
        words="Who is undone again and again backs off",
        guards=("ds01d.decide.gate:count_repairs",),
    ),
    Invariant(
        number=14,
        words="Deadlines; one NVML process, closed between samples",
        guards=(
            "ds01d.adapters.nvml.worker_process:request_sample",
            "ds01d.adapters.nvml.sampler:_ensure_process",
            "ds01d.adapters.nvml.worker:take_sample",
            "ds01d.adapters.docker.http_client:_request",
        ),
    ),
    Invariant(
        number=15,
        words="Mode observe writes nothing but its own status",
        guards=("ds01d.reconcile.reconciler:_run_locked", "ds01d.daemon.notices:add_report"),
    ),
    Invariant(
        number=16,
        words="No picture is better than the last successful pass",
        guards=(
            "ds01d.daemon.status_builder:add_report",
            "ds01d.daemon.status_builder:add_failed_pass",
        ),
    ),
    Invariant(
        number=17,
        words="Who did it stands with every change",
        guards=(
            "ds01d.adapters.host.callers:current_actor",
            "ds01d.reconcile.undo_entry:build_entry",
            "ds01d.reconcile.reconciler:act_for",
        ),
    ),
    Invariant(
        number=18,
        words="Nobody without rights stops repairs for others",
        guards=(
            "ds01d.adapters.files.file_lock:_clear_away",
            "ds01d.adapters.books.late_writers:_link_file",
            "ds01d.adapters.state_dir:_split_batches",
            "ds01d.service.operations_calls:_parse_of_operator",
            "ds01d.service.operations_calls:_hide_sections",
            "ds01d.decide.claims:bind_claimed",
            "ds01d.service.report_calls:restrict_query",
            "ds01d.service.rules:require_page_reader",
        ),
    ),
    Invariant(
        number=19,
        words="Through the socket a user changes only what is theirs, within the limits",
        guards=(
            "ds01d.service.peers:identify_peer",
            "ds01d.service.rules:choose_user",
            "ds01d.service.rules:require_own",
            "ds01d.service.rules:lower_limits",
            "ds01d.service.rules:require_no_use",
            "ds01d.adapters.books.metadata_dir:is_current",
            "ds01d.containers.confinement:confine_container",
            "ds01d.service.admission:open_connection",
            "ds01d.adapters.books.exclusive_access:_take_file",
            "ds01d.adapters.books.exclusive_access:__call__",
        ),
    ),
    Invariant(
        number=20,
        words="A container of the service is no more than its owner; of half a one nothing stays",
        guards=(
            "ds01d.containers.confinement:confine_container",
            "ds01d.containers.confinement:check_source",
            "ds01d.adapters.docker.create_body:find_excess",
            "ds01d.adapters.host.engine_files:read_status",
            "ds01d.containers.order:read_root_catalogue",
            "ds01d.containers.rebooking:require_own_slots",
            "ds01d.containers.pending_creations:remove_leftovers",
        ),
    ),
)

RULES = "tests/service/test_rules.py"
EXCLUSIVE = "tests/adapters/books/test_exclusive_access.py"
ALERTS = "tests/adapters/test_alerts_folder.py"
CLAIMS = "tests/decide/test_claims.py"
RESERVATIONS = "tests/reconcile/test_reservations.py"
ACCOUNTING = "tests/daemon/test_accounting.py"
ASKING = "tests/adapters/host/test_asking_process.py"
V2 = "tests/cli/allocator/test_v2.py"
FOR_PROCESS = "tests/reconcile/test_process_reservations.py"
CONFINEMENT = "tests/containers/test_confinement.py"
CONTAINERS = "tests/integration/test_container_service.py"
ENTER = "tests/integration/test_enter_service.py"
SESSIONS = "tests/adapters/docker/test_sessions.py"
CREATE_BODY = "tests/adapters/docker/test_create_body.py"
NVML = "tests/integration/test_nvml.py"
BAD = "tests/integration/test_bad_input.py"
MEASURING = "tests/daemon/test_pass_metrics.py"
SETTLE = "tests/reconcile/test_repair.py"
CONFIRM = "tests/reconcile/test_confirm.py"
REBUILD = "tests/decide/test_diff_rebuild.py"
RECONCILER = "tests/reconcile/test_reconciler.py"
SWAPS = "tests/decide/test_renames.py"
GATE = "tests/decide/test_gate.py"
PACE = "tests/decide/test_pace.py"
UNDO = "tests/reconcile/test_undo.py"
UNDO_SLOTS = "tests/decide/test_undo_slots.py"
TABLE = "tests/decide/test_verdict.py"
LATE = "tests/adapters/books/test_late_writers.py"
SYNCS = "tests/adapters/files/test_syncs.py"
METADATA = "tests/adapters/books/test_metadata_dir.py"
STATE = "tests/adapters/books/test_state_file.py"
FILES = "tests/adapters/files/test_safe_read.py"
OPERATIONS = "tests/adapters/books/test_operations_log.py"
WRITERS = "tests/integration/test_writers.py"
SAMPLES = "tests/adapters/nvml/test_sampler.py"
PROCESSES = "tests/adapters/host/test_processes.py"
CGROUP_FOLDERS = "tests/adapters/host/test_cgroup_folders.py"
FOLLOWED = "tests/adapters/host/test_followed_processes.py"
LIVING = "tests/decide/test_liveness.py"
HOSTILE = "tests/adapters/files/test_hostile_folders.py"
FOLDERS = "tests/test_folders.py"
LOCK = "tests/adapters/files/test_file_lock.py"

MUTATIONS = (
    Mutation(
        invariant=1,
        name="a missing metadata folder is an empty one",
        file="ds01d/adapters/books/metadata_dir.py",
        old="return Unknown(source=Source.METADATA, reason=reason)",
        new="return {}",
        tests=(
            f"{METADATA}::test_a_missing_folder_is_unknown_not_empty",
            f"{BAD}::test_a_metadata_folder_that_is_missing_or_a_file_is_unknown",
        ),
    ),
    Mutation(
        invariant=1,
        name="a host without a GPU is plausible",
        file="ds01d/decide/plausibility.py",
        old="    if not gpu.gpus:\n",
        new="    if False:\n",
        tests=(f"{NVML}::test_while_nvml_fails_nothing_changes_and_then_it_goes_on",),
    ),
    Mutation(
        invariant=1,
        name="a driver that fails shows no GPU",
        file="ds01d/adapters/nvml/inventory.py",
        old="            return _make_unknown(explain_failure(answer.failure))",
        new="            return Inventory(gpus=())",
        tests=(f"{SAMPLES}::test_an_error_of_the_driver_is_never_an_empty_inventory",),
    ),
    Mutation(
        invariant=1,
        name="a pid that cannot be is one that is gone",
        file="ds01d/adapters/nvml/reading_checks.py",
        old="        if not 0 < use.pid <= pid_max:\n",
        new="        if False:\n",
        tests=(
            f"{SAMPLES}::test_a_pid_that_cannot_be_spoils_the_list_of_its_device",
            f"{NVML}::test_a_pid_that_cannot_be_keeps_what_is_booked_on_its_device",
        ),
    ),
    Mutation(
        invariant=1,
        name="an unknown cgroup is the host's",
        file="ds01d/adapters/host/cgroup_paths.py",
        old=" if place is _IdPosition.UNDERSTOOD else _make_unknown(container_id)\n",
        new=" if place is _IdPosition.UNDERSTOOD else None\n",
        tests=(
            f"{PROCESSES}::test_an_id_in_a_form_that_is_not_understood_is_an_unknown_container",
        ),
    ),
    Mutation(
        invariant=1,
        name="one GPU's error is the host's",
        file="ds01d/adapters/nvml/worker.py",
        old="    if isinstance(error, pynvml.NVMLError) and error.value in _DRIVER_FAILED:\n",
        new="    if isinstance(error, pynvml.NVMLError):\n",
        tests=(f"{SAMPLES}::test_whatever_one_gpu_answers_concerns_that_gpu_alone",),
    ),
    Mutation(
        invariant=1,
        name="metadata that is unknown is not needed",
        file="ds01d/decide/verdict.py",
        old="    if isinstance(index.snapshot.metadata, Unknown):\n",
        new="    if False:\n",
        tests=(f"{TABLE}::test_verdict",),
    ),
    Mutation(
        invariant=1,
        name="MIG devices that a GPU does not name are gone",
        file="ds01d/adapters/nvml/reading_checks.py",
        old="    if not reading.mig or reading.migs is None or None in instances:\n",
        new="    if True:\n",
        tests=(
            (
                "tests/adapters/nvml/test_sampler.py"
                "::test_mig_devices_that_a_sick_gpu_does_not_name_are_not_gone_while_one_is_used"
            ),
        ),
    ),
    Mutation(
        invariant=1,
        name="a corrupt row hides behind another of its pid",
        file="ds01d/adapters/nvml/worker.py",
        old="            use.memory = max(use.memory or 0, row.usedGpuMemory)\n",
        new="            use.memory = use.memory or row.usedGpuMemory\n",
        tests=(
            (
                "tests/adapters/nvml/test_sampler.py"
                "::test_a_row_that_cannot_be_true_hides_behind_no_other_of_its_pid"
            ),
        ),
    ),
    Mutation(
        invariant=2,
        name="the booked slots that processes use count for nothing",
        file="ds01d/decide/verdict.py",
        old="            slots |= {slot}\n",
        new="            pass\n",
        tests=(
            f"{NVML}::test_a_process_of_a_running_container_keeps_another_booked_slot",
            f"{TABLE}::test_verdict",
        ),
    ),
    Mutation(
        invariant=2,
        name="who had a name before is forgotten with it",
        file="ds01d/decide/subject.py",
        old=(
            "    return frozenset("
            "container_id for container_id in identity.former if container_id not in listed)\n"
        ),
        new="    return frozenset()\n",
        tests=(f"{LIVING}::test_its_slot_stays_booked_while_its_process_uses_it",),
    ),
    Mutation(
        invariant=1,
        name="a GPU that denies its MIG devices has none",
        file="ds01d/decide/remembered_devices.py",
        old="    if not sick:\n        return gpu\n",
        new="    if sick or not sick:\n        return gpu\n",
        tests=("tests/reconcile/test_mig_denied.py::test_its_slots_stay_and_it_is_unhealthy",),
    ),
    Mutation(
        invariant=4,
        name="time in which nobody looked counts",
        file="ds01d/decide/gaps.py",
        old="    if before is None or now.boot - before <= longest_break_s(config):\n",
        new="    if before is None or now.boot >= before:\n",
        tests=(
            "tests/decide/test_gaps.py::test_a_layout_has_to_be_seen_for_the_freeze",
            "tests/decide/test_gaps.py::test_a_creation_goes_on_where_it_stood",
        ),
    ),
    Mutation(
        invariant=2,
        name="a paused container is stopped",
        file="ds01d/model/containers.py",
        old='self.alive = word in {"running", "paused", "restarting"}',
        new='self.alive = word in {"running", "restarting"}',
        tests=(f"{TABLE}::test_verdict",),
    ),
    Mutation(
        invariant=2,
        name="a creation has no grace",
        file="ds01d/decide/creations.py",
        old="    return (end, reason) if index.snapshot.now.boot < end else None\n",
        new="    return None\n",
        tests=(
            f"{TABLE}::test_verdict",
            "tests/decide/test_creations.py::test_a_creation_keeps_its_booking",
        ),
    ),
    Mutation(
        invariant=2,
        name="a lost memory ends creations",
        file="ds01d/reconcile/checkpoint_store.py",
        old="                Checkpoint(has_baseline=True),\n",
        new="                Checkpoint(),\n",
        tests=(
            f"{SETTLE}::test_after_the_memory_was_lost_a_booking_may_be_of_a_creation_whatever_its_times_say",
        ),
    ),
    Mutation(
        invariant=3,
        name="what Docker calls exited has no process",
        file="ds01d/decide/liveness.py",
        old="    if not alive:\n",
        new="    if True:\n",
        tests=(f"{LIVING}::test_while_a_process_of_it_lives_nothing_is_released",),
    ),
    Mutation(
        invariant=3,
        name="no look for its processes right before the write",
        file="ds01d/reconcile/confirm.py",
        old="    living = world.processes.find_living(ids) if ids else {}\n",
        new="    living = {}\n",
        tests=(
            f"{LIVING}::test_one_that_is_seen_only_right_before_the_write_keeps_its_slot",
            f"{LIVING}::test_of_a_destroyed_one_the_look_right_before_the_write_is_the_only_one",
        ),
    ),
    Mutation(
        invariant=3,
        name="no inspect right before the write",
        file="ds01d/reconcile/confirm.py",
        old="        if reason is not None:\n            refuted.add(groups",
        new="        if False:\n            refuted.add(groups",
        tests=(
            f"{CONFIRM}::test_a_container_that_is_back_before_the_write_keeps_its_booking",
            f"{CONFIRM}::test_a_stopped_container_that_starts_before_the_write_keeps_its_booking",
        ),
    ),
    Mutation(
        invariant=3,
        name="a creation that begins after the decision is not looked for",
        file="ds01d/reconcile/repair.py",
        old="            operations=world.operations.read(),",
        new="            operations=snapshot.operations,",
        tests=(f"{SETTLE}::test_a_name_whose_creation_begins_meanwhile_is_not_released",),
    ),
    Mutation(
        invariant=3,
        name="an unlisted container's process proves nothing",
        file="ds01d/decide/absence.py",
        old="    if doubt is not None:\n",
        new="    if False:\n",
        tests=(
            f"{NVML}::test_a_process_of_a_container_that_the_engine_does_not_list_blocks_the_release",
        ),
    ),
    Mutation(
        invariant=4,
        name="a time is put on the clock anew at each pass",
        file="ds01d/decide/deadlines.py",
        old="in (self.used.get(key), remembered.get(key), remembered.get(before)):",
        new="in (self.used.get(key),):",
        tests=(f"{BAD}::test_a_step_of_the_wall_clock_ends_no_hold_and_prolongs_none",),
    ),
    Mutation(
        invariant=2,
        name="names that were swapped keep their bookings",
        file="ds01d/decide/renames.py",
        old=(
            "        return name in self.previous_names and"
            " (name in self.current_name or name in self.orphans)\n"
        ),
        new="        return False\n",
        tests=(f"{SWAPS}::test_the_retention_is_that_of_the_container",),
    ),
    Mutation(
        invariant=3,
        name="a container that is gone is not missed where another one took its name",
        file="ds01d/decide/renames.py",
        old="            if name in booked\n",
        new="            if False\n",
        tests=(f"{SWAPS}::test_one_that_goes_while_the_books_have_yet_to_follow",),
    ),
    Mutation(
        invariant=11,
        name="half of a swap stays half",
        file="ds01d/reconcile/recovery.py",
        old="        if progress is _Progress.MADE and (entry.undoes or entry.homes):",
        new="        if progress is _Progress.MADE and entry.undoes:",
        tests=(f"{SWAPS}::test_killed_at_any_write_the_swap_is_finished",),
    ),
    Mutation(
        invariant=4,
        name="what lies ahead of the clock is believed",
        file="ds01d/decide/checkpoint_clock.py",
        old="    return latest is not None and latest > now.boot\n",
        new="    return False\n",
        tests=("tests/decide/test_checkpoint_clock.py::test_an_absence_is_proven_after_its_grace",),
    ),
    Mutation(
        invariant=4,
        name="a time in the future lies there",
        file="ds01d/decide/deadlines.py",
        old="    return min(at_boot, snapshot.observed_at)\n",
        new="    return at_boot\n",
        tests=(f"{BAD}::test_a_time_in_the_future_is_capped",),
    ),
    Mutation(
        invariant=5,
        name="a bare 0 is at once",
        file="ds01d/adapters/books/hold_durations.py",
        old=(
            'seconds=None, problem=f"{describe_value(value)} has no unit: {_suggest_unit(value)}"'
        ),
        new="seconds=float(value)",
        tests=(
            "tests/adapters/books/test_limits.py::test_what_is_no_duration_lasts_for_ever_and_says_so",
            f"{BAD}::test_limits_that_make_no_sense_end_no_hold",
        ),
    ),
    Mutation(
        invariant=5,
        name="limits that are not to be had are no limits",
        file="ds01d/decide/retention.py",
        old="    if isinstance(index.limits, Unknown):\n",
        new="    if isinstance(index.limits, Unknown):\n        return Free(\n"
        "            proof=Proof.EXPIRED, why=VerdictReason.HOLD_OVER,\n"
        "            due=Boot(0.0), since=Boot(0.0),\n"
        "            evidence=(),\n        )\n",
        tests=(f"{TABLE}::test_verdict", f"{BAD}::test_limits_that_make_no_sense_end_no_hold"),
    ),
    Mutation(
        invariant=5,
        name="the last good limits end holds",
        file="ds01d/model/limits.py",
        old="        if self.problem:\n            return HoldRule(",
        new="        if self.problem and user is None:\n            return HoldRule(",
        tests=(
            (
                "tests/adapters/books/test_lab_limits.py"
                "::test_a_file_that_decides_and_is_no_longer_read_leaves_the_last_limits"
            ),
        ),
    ),
    Mutation(
        invariant=5,
        name="members that cannot be read are nobody",
        file="ds01d/adapters/books/limits_files.py",
        old="            if isinstance(file, Unknown):\n                return file\n"
        '            content[f"{GROUPS}/{name}"] = file\n',
        new="            if isinstance(file, Unknown):\n                continue\n"
        '            content[f"{GROUPS}/{name}"] = file\n',
        tests=(
            "tests/adapters/books/test_lab_limits.py::test_members_that_cannot_be_read_are_unknown",
        ),
    ),
    Mutation(
        invariant=5,
        name="limits without their end are an edit",
        file="ds01d/decide/limits_age.py",
        old=" or snapshot.limits.is_part\n",
        new="\n",
        tests=("tests/integration/test_bad_input.py::test_a_file_without_its_end_ends_no_hold",),
    ),
    Mutation(
        invariant=6,
        name="no pace",
        file="ds01d/decide/pace.py",
        old="        if spent + costs[group] > window.limit and (spent or not window.limit):",
        new="        if False:",
        tests=(f"{PACE}::test_the_rest_waits_for_the_next_window",),
    ),
    Mutation(
        invariant=7,
        name="another engine is trusted",
        file="ds01d/decide/gate.py",
        old="    if checkpoint.untrusted_engine is not None and drift.takes:",
        new="    if False:",
        tests=(f"{GATE}::test_another_engine_holds_what_takes_something",),
    ),
    Mutation(
        invariant=7,
        name="another data root is the same engine",
        file="ds01d/decide/engine_identity.py",
        old="not any(engine_differences(trusted, current, same_boot=same_boot))",
        new="trusted.id == current.id",
        tests=(f"{BAD}::test_another_engine_proves_nothing_of_the_one_before",),
    ),
    Mutation(
        invariant=7,
        name="another storage driver is the same engine",
        file="ds01d/decide/engine_identity.py",
        old="complete and trusted.driver != current.driver",
        new="False",
        tests=(
            "tests/decide/test_engine_identity.py::test_what_hides_containers_is_another_engine",
        ),
    ),
    Mutation(
        invariant=7,
        name="an engine without a known container is an upgraded one",
        file="ds01d/decide/engine_identity.py",
        old="bool(is_new_form) and recognized and is_otherwise_same",
        new="bool(is_new_form) and is_otherwise_same",
        tests=(
            "tests/decide/test_engine_identity.py::test_an_upgrade_is_told_from_another_engine",
        ),
    ),
    Mutation(
        invariant=7,
        name="a new MIG layout freezes nothing",
        file="ds01d/decide/gate.py",
        old="steady_at is not None and now.boot < steady_at and (drift.takes or drift.of_table)",
        new="False",
        tests=(
            f"{NVML}::test_after_a_change_of_the_gpus_holders_go_with_their_device",
            f"{GATE}::test_a_changed_inventory_holds_releases_and_the_slot_table_until_it_is_stable",
        ),
    ),
    Mutation(
        invariant=8,
        name="nobody looks into replaced files",
        file="ds01d/adapters/books/late_writers.py",
        old="        changes = []\n        torn = False\n",
        new="        return [], False\n",
        tests=(
            f"{LATE}::test_what_was_written_while_we_replaced_the_file_is_merged_at_once",
            f"{WRITERS}::test_six_writers_without_a_lock_lose_nothing_by_ds01d",
        ),
    ),
    Mutation(
        invariant=8,
        name="a file that others can write is not linked",
        file="ds01d/adapters/books/late_writers.py",
        old="self._is_shared or not is_private(descriptor, 0o644)",
        new="self._is_shared",
        tests=(f"{LATE}::test_a_file_that_others_can_still_write_is_linked",),
    ),
    Mutation(
        invariant=19,
        name="records that others may write count as last read",
        file="ds01d/adapters/books/metadata_dir.py",
        old="        if self._is_shared:\n",
        new="        if False:\n",
        tests=(f"{METADATA}::test_where_others_may_write_the_records_are_never_known",),
    ),
    Mutation(
        invariant=19,
        name="a change of our own hides one of others",
        file="ds01d/adapters/books/metadata_reader.py",
        old="_sign_folder(folder) if was_current else None",
        new="_sign_folder(folder)",
        tests=(f"{METADATA}::test_after_changes_of_our_own_the_records_are_still_known",),
    ),
    Mutation(
        invariant=19,
        name="what we have written is as it was read before",
        file="ds01d/adapters/books/metadata_reader.py",
        old="            self._changed.add(name)\n",
        new="",
        tests=(f"{METADATA}::test_records_as_last_read_are_those_of_a_reading_afresh",),
    ),
    Mutation(
        invariant=19,
        name="a record as last read refuses a booking",
        file="ds01d/reconcile/allocator.py",
        old="if isinstance(answer, Rejected) and answer.refusal is Refusal.USER_AT_LIMIT:",
        new="if False:",
        tests=("tests/reconcile/test_allocator.py::test_a_record_as_last_read_refuses_nobody",),
    ),
    Mutation(
        invariant=8,
        name="a file that changed before the rename is replaced",
        file="ds01d/adapters/books/late_writers.py",
        old="        if not as_read:\n",
        new="        if False:\n",
        tests=(
            f"{LATE}::test_another_file_than_the_one_read_is_not_kept",
            f"{STATE}::test_a_file_that_changes_right_before_the_rename_is_not_written",
        ),
    ),
    Mutation(
        invariant=8,
        name="the lock locks nothing",
        file="ds01d/adapters/files/file_lock.py",
        old="            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        new="",
        tests=("tests/adapters/files/test_file_lock.py::test_a_script_with_flock_holds_it_too",),
    ),
    Mutation(
        invariant=8,
        name="half a file is read",
        file="ds01d/adapters/files/safe_read.py",
        old="data != _read_all(descriptor, limit) or before != Signature.of(os.fstat(descriptor))",
        new="False",
        tests=(f"{FILES}::test_a_file_written_between_two_readings_is_not_taken_for_read",),
    ),
    Mutation(
        invariant=9,
        name="a history that fails is passed over",
        file="ds01d/adapters/state_dir.py",
        old="except (OSError, WriteFailed) as error:\n            raise _history_failed(error)",
        new="except (OSError, WriteFailed):\n            return  #",
        tests=(f"{BAD}::test_without_a_history_nothing_is_done",),
    ),
    Mutation(
        invariant=9,
        name="an entry whose sync fails is passed over",
        file="ds01d/adapters/files/syncs.py",
        old="        if file_sync.failure is not None:\n",
        new="        if False:\n",
        tests=(f"{SYNCS}::test_a_failure_is_raised_before_anything_relies_on_it",),
    ),
    Mutation(
        invariant=8,
        name="a sync that was put off is made at the end only",
        file="ds01d/adapters/files/syncs.py",
        old="    _make_all([*_take_pending(), ",
        new="    _make_all([",
        tests=(
            f"{SYNCS}::test_what_is_put_off_is_synced_with_the_next_one_at_the_same_time",
            f"{SYNCS}::test_a_failure_is_raised_before_anything_relies_on_it",
        ),
    ),
    Mutation(
        invariant=8,
        name="a change that fails leaves syncs undone",
        file="ds01d/adapters/files/syncs.py",
        old="        with suppress(Exception):  # the error that ended the block has more\n"
        "            flush()\n",
        new="",
        tests=(f"{SYNCS}::test_at_the_end_everything_is_synced_however_it_ends",),
    ),
    Mutation(
        invariant=9,
        name="the history is written afterwards",
        file="ds01d/reconcile/repair.py",
        old="                    ids = begin_entries(world, decision, due, books, first=count)\n"
        "                    state = write_state(decision, books, world)\n",
        new="                    state = write_state(decision, books, world)\n"
        "                    ids = begin_entries(world, decision, due, books, first=count)\n",
        tests=(f"{SETTLE}::test_no_history_no_action",),
    ),
    Mutation(
        invariant=9,
        name="metrics that fail end the worker",
        file="ds01d/daemon/pass_metrics.py",
        old="        except Exception as error:  # noqa: BLE001 - repairs go on, whatever it is\n",
        new="        except MemoryError as error:\n",
        tests=(f"{MEASURING}::test_metrics_that_fail_are_told_once_and_harm_nothing",),
    ),
    Mutation(
        invariant=9,
        name="what was taken back is done again",
        file="ds01d/decide/gate.py",
        old="    repeated = undo_guard.find_repeated_change(drift, checkpoint.undone)\n",
        new="    repeated = None\n",
        tests=(f"{UNDO}::test_what_was_there_comes_back_and_stays_until_it_is_thawed",),
    ),
    Mutation(
        invariant=9,
        name="what a killed process left open stays open",
        file="ds01d/reconcile/reconciler.py",
        old="        recovered = recover_entries(",
        new="        return before, frozenset()\n        recovered = recover_entries(",
        tests=(f"{UNDO}::test_killed_at_any_write_it_is_taken_back_or_not",),
    ),
    Mutation(
        invariant=9,
        name="an undo overlooks a newer allocation",
        file="ds01d/decide/undo_slots.py",
        old="    if given and (others := ",
        new="    if False and (others := ",
        tests=(f"{UNDO_SLOTS}::test_a_slot_that_somebody_else_holds_now",),
    ),
    Mutation(
        invariant=10,
        name="a state that keeps changing is rebuilt",
        file="ds01d/decide/diff_rebuild.py",
        old="        fingerprint=state.digest,\n",
        new='        fingerprint="",\n',
        tests=(
            f"{REBUILD}::test_bytes_that_change_begin_the_wait_anew",
            f"{BAD}::test_a_state_that_keeps_changing_is_not_rebuilt",
        ),
    ),
    Mutation(
        invariant=10,
        name="a state is rebuilt from an empty one",
        file="ds01d/decide/decision.py",
        old="    base = state.last_good\n",
        new="    base = None\n",
        tests=(
            f"{REBUILD}::test_nothing_in_the_last_good_copy_is_lost_in_a_rebuild",
            f"{BAD}::test_a_state_without_sense_is_rebuilt_after_the_settle_time",
        ),
    ),
    Mutation(
        invariant=10,
        name="one broken record ends the reading of all",
        file="ds01d/adapters/books/metadata_reader.py",
        old="        except Malformed as error:\n"
        '            reason = f"{self.build_path(name)}: {error}"\n',
        new="        except ZeroDivisionError as error:\n"
        '            reason = f"{self.build_path(name)}: {error}"\n',
        tests=(
            f"{METADATA}::test_one_broken_record_harms_no_other",
            f"{BAD}::test_a_broken_record_harms_no_other_and_is_written_anew",
        ),
    ),
    Mutation(
        invariant=11,
        name="a container that is listed twice stays so",
        file="ds01d/decide/expected_books.py",
        old="            remaining = tuple(dict.fromkeys(remaining))\n",
        new="            pass\n",
        tests=("tests/decide/test_diff.py::test_a_listing_twice_is_a_duplicate_of_the_slot",),
    ),
    Mutation(
        invariant=11,
        name="a stop that was written is found wrong again",
        file="ds01d/decide/expected_books.py",
        old="    if old.stopped_at is None or old.stopped_at < this_run:\n",
        new="    if True:\n",
        tests=("tests/decide/test_expected_books.py::test_stopped_at",),
    ),
    Mutation(
        invariant=11,
        name="a pass that is killed forgets what it released",
        file="ds01d/reconcile/reconciler.py",
        old=(
            "                self.checkpoints.save("
            "count_releases(decision.checkpoint, paced, policy, now))\n"
        ),
        new="                pass\n",
        tests=(f"{RECONCILER}::test_a_paced_release_needs_its_memory_first",),
    ),
    Mutation(
        invariant=12,
        name="any name is possible",
        file="ds01d/adapters/books/metadata_listing.py",
        old="    return bool(name) and length <= 255 and not",
        new="    return True or not",
        tests=(f"{METADATA}::test_no_name_leads_out_of_the_folder",),
    ),
    Mutation(
        invariant=12,
        name="links are followed",
        file="ds01d/adapters/files/safe_read.py",
        old="_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        new="_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        tests=(
            f"{METADATA}::test_no_link_is_followed",
            f"{BAD}::test_a_state_that_is_no_ordinary_file_is_unknown_and_never_replaced",
        ),
    ),
    Mutation(
        invariant=12,
        name="a folder is opened by its path",
        file="ds01d/folders.py",
        old="    place = _open_last(path, service)\n    try:\n",
        new="    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)\n    try:\n",
        tests=(
            f"{HOSTILE}::test_metadata_behind_a_link",
            f"{HOSTILE}::test_the_state_behind_a_link",
        ),
    ),
    Mutation(
        invariant=12,
        name="a folder may be anybody's",
        file="ds01d/folders.py",
        old="if self._open_to_others and owner not in self._trusted and",
        new="if not self._open_to_others and owner not in self._trusted and",
        tests=(
            f"{FOLDERS}::test_a_folder_of_a_member_in_a_shared_one_is_refused_with_owner_and_fix",
        ),
    ),
    Mutation(
        invariant=12,
        name="another folder than the one that was read is written to",
        file="ds01d/folders.py",
        old="if self._read not in {None, _read_identity(descriptor)}:",
        new="if self._read is None:",
        tests=(
            f"{HOSTILE}::test_metadata_whose_folder_is_exchanged_after_it_was_read",
            f"{FOLDERS}::test_another_folder_under_the_same_name_is_not_written_to",
        ),
    ),
    Mutation(
        invariant=12,
        name="a log may be a hard link",
        file="ds01d/adapters/files/write_in_place.py",
        old="    if status.st_nlink > 1:\n",
        new="    if status.st_nlink < 1:\n",
        tests=(f"{HOSTILE}::test_a_hard_link_is_not_added_to",),
    ),
    Mutation(
        invariant=12,
        name="root keeps its rights",
        file="ds01d/adapters/host/run_as_owner.py",
        old="        os.setresuid(uid, uid, uid)\n",
        new="",
        tests=(
            (
                "tests/adapters/host/test_run_as_owner.py::"
                "test_root_becomes_the_owner_for_good_and_keeps_only_what_shows_processes"
            ),
        ),
    ),
    Mutation(
        invariant=12,
        name="any number of bookings is understood",
        file="ds01d/adapters/books/state_format.py",
        old="    _refuse_many(document.gpus)\n",
        new="",
        tests=(
            (
                "tests/adapters/books/test_state_format.py::"
                "test_a_state_that_no_server_can_have_is_refused_before_its_names_are_looked_at"
            ),
        ),
    ),
    Mutation(
        invariant=12,
        name="names go into the log as they are",
        file="ds01d/adapters/books/operations_format.py",
        old='    return "".join(map(_escape_character, field))',
        new="    return field",
        tests=(
            f"{OPERATIONS}::test_any_field_fits_between_separators_on_one_line",
            f"{BAD}::test_odd_names_in_the_state_leave_no_folder_and_break_no_line",
        ),
    ),
    Mutation(
        invariant=12,
        name="a login is a path of a file with notices",
        file="ds01d/adapters/alerts_folder.py",
        old='        and "/" not in name\n',
        new="",
        tests=(f"{ALERTS}::test_a_login_that_is_no_name_of_a_file_gets_none",),
    ),
    Mutation(
        invariant=12,
        name="a file of notices that cannot be understood is an empty one",
        file="ds01d/adapters/alerts_folder.py",
        old="        if data.obstacle is ReadFailure.MISSING:\n",
        new="        if data.obstacle:\n",
        tests=(f"{ALERTS}::test_what_users_put_there_is_neither_followed_nor_destroyed",),
    ),
    Mutation(
        invariant=12,
        name="notices that others add meanwhile are lost",
        file="ds01d/adapters/alerts_folder.py",
        old="        if _read_signature(path, folder) != signature:\n",
        new="        if False:\n",
        tests=(f"{ALERTS}::test_what_another_writer_adds_meanwhile_is_kept",),
    ),
    Mutation(
        invariant=12,
        name="an event is as long as its details",
        file="ds01d/adapters/books/events_file.py",
        old="    if len(data) < MAX_LINE_BYTES:\n",
        new="    if data:\n",
        tests=("tests/adapters/books/test_events_file.py::test_every_line_is_one_and_short",),
    ),
    Mutation(
        invariant=13,
        name="no back-off",
        file="ds01d/decide/gate.py",
        old="    if repair is not None and now.boot < repair.not_before:",
        new="    if False:",
        tests=(f"{GATE}::test_a_repair_in_back_off_waits",),
    ),
    Mutation(
        invariant=14,
        name="NVML stays open",
        file="ds01d/adapters/nvml/worker.py",
        old="        pynvml.nvmlShutdown()\n",
        new="",
        tests=(f"{SAMPLES}::test_nvml_is_closed_between_samples",),
    ),
    Mutation(
        invariant=14,
        name="a hanging NVML process gets a second one",
        file="ds01d/adapters/nvml/sampler.py",
        old="        if process.kill_process():\n            self._process = None\n",
        new="        process.kill_process()\n        self._process = None\n        if False:\n"
        "            pass\n",
        tests=(f"{SAMPLES}::test_there_is_one_process_at_most_even_if_it_cannot_be_killed",),
    ),
    Mutation(
        invariant=14,
        name="no deadline for NVML",
        file="ds01d/adapters/nvml/worker_process.py",
        old="        deadline = time.monotonic() + timeout_s\n",
        new="        deadline = time.monotonic() + timeout_s + 30\n",
        tests=(
            f"{SAMPLES}::test_the_deadline_holds_and_the_next_sample_has_a_fresh_process",
            f"{NVML}::test_while_nvml_hangs_nothing_changes_and_the_pass_goes_on",
        ),
    ),
    Mutation(
        invariant=14,
        name="no deadline for Docker",
        file="ds01d/adapters/docker/http_client.py",
        old="        self._deadline = time.monotonic() + self._call_timeout_s\n",
        # So long that the test hangs, which is a failure: it measures no times.
        new="        self._deadline = time.monotonic() + self._call_timeout_s + 300\n",
        tests=(f"{BAD}::test_an_engine_that_drips_is_left_at_the_deadline",),
    ),
    Mutation(
        invariant=15,
        name="mode observe settles",
        file="ds01d/reconcile/reconciler.py",
        old='        if self._config.daemon.mode == "observe":',
        new="        if False:",
        tests=(f"{RECONCILER}::test_mode_observe_writes_nothing_but_its_memory",),
    ),
    Mutation(
        invariant=15,
        name="users get notices of what is only observed",
        file="ds01d/daemon/notices.py",
        old="        if not self._outboxes or not report.is_applied:\n",
        new="        if not self._outboxes:\n",
        tests=(
            "tests/daemon/test_notices.py::test_nothing_is_told_in_mode_observe_or_where_it_is_off",
        ),
    ),
    Mutation(
        invariant=12,
        name="whoever a label names gets mail",
        file="ds01d/adapters/notices/mail.py",
        old="        find_uid(notice.user)\n",
        new="",
        tests=("tests/adapters/notices/test_mail.py::test_who_is_no_user_of_this_host_gets_none",),
    ),
    Mutation(
        invariant=12,
        name="a terminal gets letters that it may obey",
        file="ds01d/adapters/notices/terminals.py",
        old='.encode("ascii", "backslashreplace")',
        new='.encode("utf-8", "backslashreplace")',
        tests=(
            (
                "tests/adapters/notices/test_terminals.py"
                "::test_a_terminal_gets_ascii_and_nothing_that_it_obeys"
            ),
        ),
    ),
    Mutation(
        invariant=12,
        name="mesg n refuses nothing",
        file="ds01d/adapters/notices/terminals.py",
        old="        and status.st_mode & stat.S_IWGRP\n",
        new="",
        tests=(
            "tests/adapters/notices/test_terminals.py::test_one_that_refuses_messages_gets_none",
        ),
    ),
    Mutation(
        invariant=18,
        name="a notice that ends its sender is sent without end",
        file="ds01d/notifier/delivery.py",
        old="        if attempts > MAX_ATTEMPTS:\n",
        new="        if False:\n",
        tests=(
            (
                "tests/notifier/test_delivery.py"
                "::test_one_that_kills_the_process_each_time_is_not_tried_without_end"
            ),
        ),
    ),
    Mutation(
        invariant=16,
        name="a pass over some names proves that sweeps succeed",
        file="ds01d/daemon/status_builder.py",
        old="        if report.is_sweep or not self.is_failing:",
        new="        if report.drifts is not None:",
        tests=(
            (
                "tests/daemon/test_status_builder.py::"
                "test_passes_that_fail_are_in_it_until_one_over_everything_succeeds"
            ),
        ),
    ),
    Mutation(
        invariant=17,
        name="a process did what it did as whom it has become",
        file="ds01d/adapters/host/callers.py",
        old="@cache\ndef current_actor()",
        new="def current_actor()",
        tests=(
            "tests/adapters/host/test_callers.py::test_it_is_who_began_also_after_taking_on_another_uid",
        ),
    ),
    Mutation(
        invariant=17,
        name="a sweep that an operator asked for is made by ds01d",
        file="ds01d/reconcile/reconciler.py",
        old="        other._world = replace(self._world, actor=actor)",
        new="        other._world = self._world",
        tests=("tests/service/test_operations.py::test_what_an_operator_does_names_them",),
    ),
    Mutation(
        invariant=18,
        name="everybody sees who had what",
        file="ds01d/service/report_calls.py",
        old="    if peer.is_operator:\n        return query\n",
        new="    if peer.uid >= 0:\n        return query\n",
        tests=("tests/cli/ctl/test_usage_report.py::test_who_is_no_operator_sees_their_own_alone",),
    ),
    Mutation(
        invariant=18,
        name="everybody sees who waits and what all did",
        file="ds01d/service/activity_calls.py",
        old="        rules.require_page_reader(request.peer)\n",
        new="",
        tests=(
            "tests/service/test_activity_calls.py::test_everybody_else_is_refused_before_anything_is_read",
        ),
    ),
    Mutation(
        invariant=9,
        name="an accounting that cannot be written ends the pass",
        file="ds01d/daemon/accounting.py",
        old="            self._record(report, now)\n        except Ds01Error as error:\n",
        new="            self._record(report, now)\n        except ZeroDivisionError as error:\n",
        tests=(
            "tests/daemon/test_accounting.py::test_one_that_is_locked_is_a_warning_and_is_caught_up_with",
        ),
    ),
    Mutation(
        invariant=1,
        name="what nobody knows of a slot's use is idleness",
        file="ds01d/decide/device_use.py",
        old="        return SlotUse.RETAINED if is_stopped else None\n",
        new="        return SlotUse.RETAINED if is_stopped else SlotUse.IDLE\n",
        tests=("tests/decide/test_device_use.py::test_of_a_mig_device",),
    ),
    Mutation(
        invariant=1,
        name="time that nobody saw is idle time",
        file="ds01d/decide/idleness.py",
        old="        and 0.0 <= now.boot - former.read_at <= READING_S\n",
        new="",
        tests=(
            "tests/decide/test_idleness.py::test_nothing_is_reported_while_a_reading_of_the_time_was_unknown_or_of_use",
        ),
    ),
    Mutation(
        invariant=1,
        name="a reading that fails goes on with idle time",
        file="ds01d/decide/idleness.py",
        old="is SlotUse.IDLE for slot",
        new="in (SlotUse.IDLE, None) for slot",
        tests=("tests/decide/test_idleness.py::test_each_reading_is_idle_or_not",),
    ),
    Mutation(
        invariant=1,
        name="a cgroup that shows no exceptions allows everything",
        file="ds01d/adapters/host/device_cgroups.py",
        old='match is None or match[1] == "a"',
        new="match is None",
        tests=(
            "tests/adapters/host/test_device_cgroups.py::test_what_does_not_show_what_is_denied_is_unknown",
        ),
    ),
    Mutation(
        invariant=11,
        name="opening the accounting takes the locks of its readers",
        file="ds01d/adapters/accounting_database.py",
        old="        if not stat.S_ISREG(path.lstat().st_mode):\n",
        new="        os.close(os.open(path, os.O_RDWR))\n        if not path.lstat().st_mode:\n",
        tests=(
            "tests/adapters/test_accounting_file.py::test_opening_it_again_takes_no_lock_from_a_reader_in_this_process",
        ),
    ),
    Mutation(
        invariant=11,
        name="a save of the accounting may be stored in part",
        file="ds01d/adapters/accounting_database.py",
        old='    database.execute("BEGIN IMMEDIATE")\n',
        new='    database.execute("SELECT 1")\n',
        tests=(
            "tests/adapters/test_accounting_file.py::test_what_cannot_be_stored_leaves_no_part_of_it",
        ),
    ),
    Mutation(
        invariant=18,
        name="everybody is an operator",
        file="ds01d/service/operations_calls.py",
        old="    require_operator(request.peer)\n",
        new="    pass\n",
        tests=("tests/service/test_operations.py::test_who_is_no_operator_changes_nothing",),
    ),
    Mutation(
        invariant=18,
        name="everybody sees the processes and labels of all",
        file="ds01d/service/operations_calls.py",
        old="if peer.is_operator or (names and",
        new="if True or (names and",
        tests=("tests/service/test_operations.py::test_others_see_what_status_shows",),
    ),
    Mutation(
        invariant=18,
        name="whoever may read a lock holds it",
        file="ds01d/adapters/files/file_lock.py",
        old="mode: int = 0o660",
        new="mode: int = 0o664",
        tests=(f"{LOCK}::test_it_is_taken_and_given_back_and_its_file_stays",),
    ),
    Mutation(
        invariant=18,
        name="what is no lock stays in its place",
        file="ds01d/adapters/files/file_lock.py",
        old="                    self._clear_away(folder, in_turn=in_turn)\n",
        new="                    pass\n",
        tests=(
            f"{LOCK}::test_what_can_be_no_lock_is_moved_out_of_the_way",
            f"{LOCK}::test_a_lock_file_that_we_may_not_open_keeps_nobody_from_work",
        ),
    ),
    Mutation(
        invariant=18,
        name="a file that cannot be linked is not replaced",
        file="ds01d/adapters/books/late_writers.py",
        old="            if error.errno not in _NO_LINKS:\n",
        new="            if error.errno:\n",
        tests=(
            (
                "tests/adapters/books/test_shared_folder.py::"
                "test_a_state_of_a_member_or_of_root_is_replaced_and_is_the_services_again"
            ),
        ),
    ),
    Mutation(
        invariant=18,
        name="a history is as large as a batch",
        file="ds01d/adapters/state_dir.py",
        old="            if size and size + len(line) >= _HISTORY_SIZE:\n",
        new="            if not batch and size >= _HISTORY_SIZE:\n",
        tests=(
            (
                "tests/adapters/test_state_dir.py::"
                "test_it_is_bounded_within_a_batch_too_and_what_was_left_open_is_still_found"
            ),
        ),
    ),
    Mutation(
        invariant=2,
        name="a pid that was seen before is still of the same process",
        file="ds01d/adapters/host/followed_processes.py",
        old="is_same = entry.started == last.description.started",
        new="is_same = True",
        tests=(
            f"{FOLLOWED}::test_a_pid_that_was_seen_before_and_changes_hands_is_who_has_it_now",
            f"{FOLLOWED}::test_what_was_read_ahead_counts_for_the_very_process",
        ),
    ),
    Mutation(
        invariant=2,
        name="what was read ahead of a process that ended is of who has its pid",
        file="ds01d/adapters/host/followed_processes.py",
        old=" and last.files.handle not in self._ended",
        new="",
        tests=(
            f"{FOLLOWED}::test_a_real_process_is_as_by_the_first_look_however_it_is_followed[128]",
        ),
    ),
    Mutation(
        invariant=2,
        name="a process stays its user's",
        file="ds01d/adapters/host/followed_processes.py",
        old=" and again.owner == last.owner:",
        new=":",
        tests=(f"{FOLLOWED}::test_a_process_of_another_user_than_before_is_read_whole",),
    ),
    Mutation(
        invariant=2,
        name="the folders of a cgroup namespace are all that there are",
        file="ds01d/adapters/host/cgroup_folders.py",
        old=' or (root / "cgroup.events").exists():',
        new=":",
        tests=(f"{CGROUP_FOLDERS}::test_what_cannot_be_seen_is_unknown",),
    ),
    Mutation(
        invariant=2,
        name="a cgroup whose path is too long has nobody of a container in it",
        file="ds01d/adapters/host/processes.py",
        old="            if too_long is not None:",
        new="            if False:",
        tests=(f"{CGROUP_FOLDERS}::test_folders_show_what_lives",),
    ),
    Mutation(
        invariant=2,
        name="every child of kthreadd is a thread of the kernel",
        file="ds01d/adapters/host/kernel_threads.py",
        old="{pid for pid in new if self._check_pid(pid)}",
        new="{*new}",
        tests=(
            (
                "tests/adapters/host/test_kernel_threads.py"
                "::test_a_program_that_the_kernel_started_is"
            ),
        ),
    ),
    Mutation(
        invariant=2,
        name="pid 2 is kthreadd everywhere",
        file="ds01d/adapters/host/kernel_threads.py",
        old="self._has_kthreadd or self._is_kernel_thread(_KTHREADD)",
        new="True",
        tests=(
            (
                "tests/adapters/host/test_kernel_threads.py"
                "::test_in_another_pid_namespace_pid_2_is_of_anybody"
            ),
        ),
    ),
    Mutation(
        invariant=12,
        name="a slot that reads alike is the one that was read before",
        file="ds01d/adapters/books/state_format.py",
        old="text is None or text != known_text or raw != known_raw:",
        new="raw != known_raw:",
        tests=(
            (
                "tests/adapters/books/test_state_format.py"
                "::test_a_slot_is_understood_alike_whatever_was_read_before"
            ),
        ),
    ),
    Mutation(
        invariant=18,
        name="a cgroup that a user made keeps a container alive",
        file="ds01d/adapters/host/processes.py",
        old="cgroup = whole if self._rootless else without_users_own(whole)",
        new="cgroup = whole",
        tests=(
            (
                "tests/adapters/host/test_processes.py"
                "::test_a_cgroup_that_a_user_made_proves_nothing_of_the_systems_engine"
            ),
        ),
    ),
    Mutation(
        invariant=18,
        name="a cgroup that is named after a container keeps it alive",
        file="ds01d/adapters/host/processes.py",
        old="if container in living or self._is_of_another(cgroup, container):",
        new="if container in living:",
        tests=(
            "tests/adapters/host/test_processes.py::test_a_container_in_a_cgroup_named_after_another_keeps_nothing_of_it",
        ),
    ),
    Mutation(
        invariant=2,
        name="a container inside of a listed one counts as dead",
        file="ds01d/adapters/host/cgroup_paths.py",
        old="depth > named and place",
        new="depth != named and place",
        tests=(
            "tests/adapters/host/test_processes.py::test_a_container_in_a_cgroup_named_after_another_keeps_nothing_of_it",
        ),
    ),
    Mutation(
        invariant=19,
        name="folders that a script gives away stay so until a restart",
        file="ds01d/adapters/books/exclusive_access.py",
        old="            and (owner != os.geteuid() or mode & _OTHERS_WRITE)\n",
        new="            and owner != os.geteuid()\n",
        tests=(f"{EXCLUSIVE}::test_what_a_script_gives_away_again_is_taken_back",),
    ),
    Mutation(
        invariant=20,
        name="a command is run in any container of its user",
        file="ds01d/containers/session_calls.py",
        old="            self.require_confined(call, call.find_own(wanted.name))\n",
        new="            call.find_own(wanted.name)\n",
        tests=(f"{ENTER}::test_a_container_that_may_do_more_than_its_owner",),
    ),
    Mutation(
        invariant=18,
        name="a command is run in any container by whoever reaches Docker",
        file="ds01d/containers/sessions.py",
        old="        self.check_owner(container)\n",
        new="",
        tests=("tests/integration/test_enter.py::test_somebody_elses_container_is_refused",),
    ),
    Mutation(
        invariant=19,
        name="the ID of a command is a secret",
        file="ds01d/containers/sessions.py",
        old="        if state is None or state.container != container.id:\n",
        new="        if state is None:\n",
        tests=(f"{ENTER}::test_what_is_somebody_elses",),
    ),
    Mutation(
        invariant=18,
        name="a user may run any number of commands",
        file="ds01d/containers/sessions.py",
        old="        if self.sessions.count_sessions(container.id) >= MAX_SESSIONS:\n",
        new="        if False:\n",
        tests=(f"{ENTER}::test_so_many_sizes_and_commands",),
    ),
    Mutation(
        invariant=18,
        name="a stream that nobody takes stays open",
        file="ds01d/service/requests.py",
        old="                return\n        stream.close()\n",
        new="                return\n",
        tests=("tests/service/test_server.py::TestStreams::test_nobody_takes_it",),
    ),
    Mutation(
        invariant=18,
        name="a connection that can serve another request is handed out",
        file="ds01d/adapters/docker/http_client.py",
        old="response.status == (101 if upgrade else 200)",
        new="response.status < 400",
        tests=(f"{SESSIONS}::test_a_connection_that_can_serve_more_is_not_handed_out",),
    ),
    Mutation(
        invariant=18,
        name="what comes with the head of an answer is not the stream's",
        file="ds01d/adapters/docker/deadline_socket.py",
        old="            nbytes = 1\n",
        new="            pass\n",
        tests=(f"{SESSIONS}::test_what_comes_with_the_head_belongs_to_the_stream",),
    ),
    Mutation(
        invariant=18,
        name="what root may mount, everybody may choose",
        file="ds01d/adapters/host/privileges.py",
        old="    if not chosen and not _has_foreign_link(path):\n",
        new="    if not _has_foreign_link(path):\n",
        tests=("tests/integration/test_container_options.py::test_folders_of_ones_own",),
    ),
    Mutation(
        invariant=14,
        name="a pull may make no progress",
        file="ds01d/adapters/docker/http_client.py",
        old="            if now - moved_at >= idle_s:\n",
        new="            if False:\n",
        tests=("tests/integration/test_catalogue.py::test_a_pull_ends_in_time",),
    ),
    Mutation(
        invariant=18,
        name="a name of a megabyte, or another's ID, is a name",
        file="ds01d/adapters/docker/parsing.py",
        old="ContainerName(name if usable else container_id)",
        new="ContainerName(name)",
        tests=(
            "tests/adapters/docker/test_parsing.py::test_a_name_that_is_no_use_gives_way_to_the_id",
        ),
    ),
    Mutation(
        invariant=2,
        name="derived books stay when devices are renumbered",
        file="ds01d/decide/docker_books.py",
        old="[(g.uuid, g.index, g.minor, g.pci, g.mig) for g in snapshot.gpu.gpus]",
        new="len(snapshot.gpu.gpus)",
        tests=(
            "tests/reconcile/test_docker_books.py::test_the_same_inputs_give_the_same_books",
            "tests/reconcile/test_docker_books.py::test_what_matters_is_an_input",
        ),
    ),
    Mutation(
        invariant=2,
        name="what an index meant before a renumbering is known for good",
        file="ds01d/decide/device_resolution.py",
        old="ref.kind is RefKind.UUID for ref",
        new="True for ref",
        tests=(
            "tests/decide/test_device_resolution.py::test_only_whole_uuids_mean_the_same_by_every_inventory",
        ),
    ),
    Mutation(
        invariant=18,
        name="an index of thousands of digits is read as a number",
        file="ds01d/decide/device_resolution.py",
        old="if text.isdecimal() and len(text) <= _MOST_DIGITS else None",
        new="if text.isdecimal() else None",
        tests=(
            "tests/decide/test_device_resolution.py::test_an_index_of_thousands_of_digits_is_no_device",
        ),
    ),
    Mutation(
        invariant=18,
        name="any text of a label is a login",
        file="ds01d/decide/ownership.py",
        old="len(text) <= LONGEST_LOGIN and _is_word(text)",
        new="True",
        tests=("tests/decide/test_ownership.py::test_a_label_that_can_name_nobody",),
    ),
    Mutation(
        invariant=18,
        name="whose label it is does not matter",
        file="ds01d/decide/claims.py",
        old="            if find_claim_owner(container, snapshot) == record.user\n",
        new="",
        tests=(f"{CLAIMS}::test_a_label_of_somebody_else_takes_nothing",),
    ),
    Mutation(
        invariant=18,
        name="a label stands in for a uid that nobody knows",
        file="ds01d/decide/claims.py",
        old="    if (uid := parse_uid(container.name)) is not None:\n",
        new="    if (uid := parse_uid(container.name)) in snapshot.passwd:\n",
        tests=(f"{CLAIMS}::test_while_the_user_database_is_away_no_label_stands_in_for_a_uid",),
    ),
    Mutation(
        invariant=2,
        name="a claim takes the booking of a container that exists",
        file="ds01d/decide/claims.py",
        old="labelled or not _is_vacant(name, engine, checkpoint):\n",
        new="labelled:\n",
        tests=(
            f"{CLAIMS}::test_a_claim_takes_nothing_from_the_container_of_the_reserved_name",
            f"{CLAIMS}::test_a_claim_takes_nothing_from_a_container_that_was_renamed_away",
        ),
    ),
    Mutation(
        invariant=18,
        name="one container claims each copy of a record",
        file="ds01d/decide/claims.py",
        old="        if container.claimed_booking is not None and container.id not in bound:\n",
        new="        if container.claimed_booking is not None:\n",
        tests=(f"{CLAIMS}::test_a_record_copied_by_hand_moves_one_booking_only",),
    ),
    Mutation(
        invariant=2,
        name="of two claims any one counts",
        file="ds01d/decide/claims.py",
        old="            claimants[name] = min(fitting, key=_order_by_creation)\n",
        new="            claimants[name] = fitting[-1]\n",
        tests=(f"{CLAIMS}::test_of_two_claims_the_first_by_creation_has_it",),
    ),
    Mutation(
        invariant=4,
        name="a claim is younger than the allocation by the clock alone",
        file="ds01d/decide/creations.py",
        old="    if _has_claimed(subject, index):\n",
        new="    if False:\n",
        tests=(f"{CLAIMS}::test_a_claim_counts_whatever_the_clocks_show",),
    ),
    Mutation(
        invariant=18,
        name="a device is claimed out of another user's slice",
        file="ds01d/decide/claims.py",
        old="    if in_slice is not None:\n",
        new="    if False:\n",
        tests=(f"{FOR_PROCESS}::TestContainer::test_a_label_takes_nothing_from_somebody_else",),
    ),
    Mutation(
        invariant=18,
        name="a label and a reservation's ID take it from another user",
        file="ds01d/decide/claims.py",
        old="    return None if is_refuted else owner\n",
        new="    return owner\n",
        tests=(f"{FOR_PROCESS}::TestContainer::test_a_label_takes_nothing_from_somebody_else",),
    ),
    Mutation(
        invariant=4,
        name="a container is younger than a reservation by the clock alone",
        file="ds01d/decide/claims.py",
        old="        anchored is not None and to_boot_time(created, snapshot) >= anchored.at\n",
        new="        False\n",
        tests=(
            f"{FOR_PROCESS}::TestContainer::test_a_clock_that_is_set_in_between_keeps_no_container_from_it",
        ),
    ),
    Mutation(
        invariant=2,
        name="the end of one process ends what another one asked for, too",
        file="ds01d/reconcile/allocator.py",
        old="        if wish.process in record.processes:\n",
        new="        if True:\n",
        tests=(
            f"{FOR_PROCESS}::TestEnd::test_a_second_process_that_asks_for_the_name_keeps_it_too",
        ),
    ),
    Mutation(
        invariant=4,
        name="the limit of a reservation begins with the end of a container",
        file="ds01d/decide/creations.py",
        old="    if record is None or allocated is None:\n        return None\n    # Before",
        new="    if record is None or allocated is None or (container and container.state.alive):\n"
        "        return None\n    # Before",
        tests=(f"{FOR_PROCESS}::TestEnd::test_a_container_in_between_does_not_prolong_its_limit",),
    ),
    Mutation(
        invariant=3,
        name="a reservation is released although a container has just claimed it",
        file="ds01d/reconcile/confirm.py",
        old="    return _look_for_claimants(name, index, world)\n",
        new="    return answer, None\n",
        tests=(f"{CLAIMS}::test_a_claim_right_before_the_release_postpones_it",),
    ),
    Mutation(
        invariant=19,
        name="an ID is enough to release what somebody else has",
        file="ds01d/decide/booking_record.py",
        old="name if identify_booking(name, records.get(name)) == booking else None\n",
        new="name\n",
        tests=(f"{RESERVATIONS}::test_whoever_gives_name_and_id_releases_only_what_both_name",),
    ),
    Mutation(
        invariant=19,
        name="a MIG device of an unknown profile weighs nothing",
        file="ds01d/decide/user_quota.py",
        old="    return unknown if gpus is None else gpus\n",
        new="    return _WHOLE - _WHOLE if gpus is None else gpus\n",
        tests=("tests/decide/test_user_quota.py::test_the_weight_of_a_mig_device",),
    ),
    Mutation(
        invariant=19,
        name="the best slots are given whatever they weigh",
        file="ds01d/decide/allocation.py",
        old="        if refused is None:\n            return self._make_allocated(best)\n",
        new="        if refused is None or best:\n            return self._make_allocated(best)\n",
        tests=(
            (
                "tests/decide/test_user_quota.py"
                "::test_whole_gpus_come_first_and_what_exceeds_the_quota_last"
            ),
        ),
    ),
    Mutation(
        invariant=19,
        name="several slots count as one",
        file="ds01d/decide/user_quota.py",
        old="        if booked + count > most:\n",
        new="        if booked >= most:\n",
        tests=(
            f"{RESERVATIONS}::test_it_counts_for_the_quota_until_it_ends",
            "tests/decide/test_allocation.py::test_all_slots_or_none",
        ),
    ),
    Mutation(
        invariant=19,
        name="two slots of one device are two",
        file="ds01d/decide/allocation.py",
        old="            devices.setdefault(self._index.find_device(slot) or slot.id, slot)\n",
        new="            devices[slot.id] = slot\n",
        tests=("tests/decide/test_allocation.py::test_one_device_is_given_once",),
    ),
    Mutation(
        invariant=12,
        name="whoever names a container after a booking has its ID",
        file="ds01d/reconcile/booking_ids.py",
        old="    if booking is None or find_booking(booking, records) not in (None, container):\n",
        new="    if booking is None:\n",
        tests=(f"{RESERVATIONS}::test_an_id_in_a_name_that_somebody_else_has_is_not_taken_over",),
    ),
    Mutation(
        invariant=12,
        name="a container that is named after a booking is given its ID",
        file="ds01d/decide/expected_books.py",
        old="    if booking is None or find_booking(booking, index.records) is not None:\n",
        new="    if booking is None:\n",
        tests=(f"{RESERVATIONS}::test_a_lost_record_has_the_id_of_its_name_again",),
    ),
    Mutation(
        invariant=19,
        name="a booking without a name is asked for twice",
        file="ds01d/service/allocator_client.py",
        old="        is_repeatable = container is not None and not another\n",
        new="        is_repeatable = not another\n",
        tests=(
            "tests/service/test_client.py::test_only_what_is_one_booking_twice_is_asked_for_again",
        ),
    ),
    Mutation(
        invariant=19,
        name="who calls is whoever the call names",
        file="ds01d/service/rules.py",
        old="    require_operator(peer)\n    return UserName(user)\n",
        new="    return UserName(user)\n",
        tests=(f"{RULES}::test_a_user_is_oneself",),
    ),
    Mutation(
        invariant=19,
        name="a booking is everybody's",
        file="ds01d/service/rules.py",
        old="    if owner is not None and owner != peer.login:\n",
        new="    if False:\n",
        tests=(f"{RULES}::test_what_is_somebody_elses_is_refused",),
    ),
    Mutation(
        invariant=19,
        name="the uid in a name says nothing",
        file="ds01d/service/rules.py",
        old="    is_named_otherwise = uid is not None and uid != peer.uid\n",
        new="    is_named_otherwise = False\n",
        tests=(f"{RULES}::test_what_is_somebody_elses_is_refused",),
    ),
    Mutation(
        invariant=19,
        name="a booking of nobody known is everybody's",
        file="ds01d/service/rules.py",
        old="    if owner is None and is_booked:\n",
        new="    if False:\n",
        tests=(f"{RULES}::test_a_booking_of_an_unknown_user_is_an_operators",),
    ),
    Mutation(
        invariant=19,
        name="a quota is what the caller says",
        file="ds01d/service/rules.py",
        old="        most = min(most, quota)\n",
        new="        pass\n",
        tests=(f"{RULES}::test_a_user_only_lowers_the_limits",),
    ),
    Mutation(
        invariant=19,
        name="limits that cannot be read are the caller's",
        file="ds01d/service/rules.py",
        old="    if isinstance(limits, Unknown):\n",
        new="    if isinstance(limits, Unknown):\n        return most, priority\n",
        tests=(f"{RULES}::test_limits_that_cannot_be_read_refuse",),
    ),
    Mutation(
        invariant=19,
        name="a slot that is released during a creation stays in use",
        file="ds01d/containers/create.py",
        old="        self._require_booked()\n",
        new="",
        tests=(
            (
                "tests/integration/test_container_service.py"
                "::TestAnEnd::test_by_a_release_of_its_slot_meanwhile"
            ),
        ),
    ),
    Mutation(
        invariant=19,
        name="whoever cannot be seen does not run",
        file="ds01d/service/rules.py",
        old="    if peer.is_operator or isinstance(container, NotFound):\n",
        new="    if peer.is_operator or not isinstance(container, Container):\n",
        tests=(f"{RULES}::test_while_nobody_knows_what_runs_nothing_is_released",),
    ),
    Mutation(
        invariant=18,
        name="whoever books a container of nobody sees into it",
        file="ds01d/service/operations_calls.py",
        old="    return choose_owner(name, None, labels, users, uids) == peer.login\n",
        new="    return True\n",
        tests=(
            (
                "tests/service/test_operations.py"
                "::test_who_books_a_container_of_nobody_sees_no_more_of_it"
            ),
        ),
    ),
    Mutation(
        invariant=19,
        name="what a running container has is free for another booking",
        file="ds01d/service/rules.py",
        old="    if container.state.alive and has_gpu:\n",
        new="    if False:\n",
        tests=(f"{RULES}::test_who_runs_with_a_gpu_keeps_its_booking",),
    ),
    Mutation(
        invariant=18,
        name="one user's calls may take every thread",
        file="ds01d/service/call_threads.py",
        old="        if uid != 0 and sum(",
        new="        if False and sum(",
        tests=(
            (
                "tests/service/test_call_threads.py"
                "::test_who_disconnects_and_calls_again_takes_no_thread_of_others"
            ),
        ),
    ),
    Mutation(
        invariant=18,
        name="whoever waits for more than there is keeps their place",
        file="ds01d/decide/allocation.py",
        old="        is_lasting = 1 < count > len(self._list_by_device(fitting))\n",
        new="        is_lasting = False\n",
        tests=("tests/decide/test_allocation.py::test_nobody_waits_for_more_than_there_is",),
    ),
    Mutation(
        invariant=18,
        name="who may not call keeps a connection",
        file="ds01d/service/server.py",
        old="        while isinstance(peer, Peer) and not self._stop.is_set():\n",
        new="        while not self._stop.is_set():\n",
        tests=(
            "tests/service/test_server.py::test_uids_without_a_login_take_no_room",
            "tests/service/test_server.py::test_who_may_not_connect_gains_nothing_by_waiting",
        ),
    ),
    Mutation(
        invariant=1,
        name="what is listed right after a boot is all there is to book",
        file="ds01d/decide/boot_layout.py",
        old="if not isinstance(gpu, Inventory) or now.boot >= boot_grace_s:",
        new="if not isinstance(gpu, Inventory) or now.boot >= 0:",
        tests=(
            "tests/decide/test_boot_layout.py::test_what_is_handed_out",
            "tests/integration/test_boot_layout.py::test_sync_makes_no_table_of_what_is_not_all",
        ),
    ),
    Mutation(
        invariant=20,
        name="a folder that users can change is on the way to a mount",
        file="ds01d/containers/confinement.py",
        old="        _require_root_only(path, folder, status)\n",
        new="        pass\n",
        tests=(
            f"{CONFINEMENT}::TestSources::test_that_are_refused",
            f"{CONFINEMENT}::TestSources::test_whatever_is_mounted_cannot_be_exchanged",
        ),
    ),
    Mutation(
        invariant=20,
        name="a home that is a link is mounted",
        file="ds01d/containers/confinement.py",
        old="        if not pending or links > _MAX_LINKS or status.uid != 0:\n",
        new="        if links > _MAX_LINKS or status.uid != 0:\n",
        tests=(f"{CONFINEMENT}::TestSources::test_that_are_refused",),
    ),
    Mutation(
        invariant=20,
        name="a home is anybody's",
        file="ds01d/containers/confinement.py",
        old='    if status.uid not in allowed or folder == "/":\n',
        new='    if folder == "/":\n',
        tests=(f"{CONFINEMENT}::TestSources::test_that_are_refused",),
    ),
    Mutation(
        invariant=20,
        name="a folder below the home is a mount of its own",
        file="ds01d/containers/confinement.py",
        old="posixpath.relpath(source, home)\n            continue\n",
        new="posixpath.relpath(source, home)\n",
        tests=(f"{CONFINEMENT}::TestMounts::test_a_folder_of_the_home_is_the_working_directory",),
    ),
    Mutation(
        invariant=20,
        name="a mount lies in another one",
        file="ds01d/containers/confinement.py",
        old=" > 1 or any(_is_below(target, other) for other in targets):\n",
        new=" > 1:\n",
        tests=(f"{CONFINEMENT}::TestMounts::test_that_are_refused",),
    ),
    Mutation(
        invariant=20,
        name="a working directory is anywhere",
        file="ds01d/containers/confinement.py",
        old='    if path.rstrip("/") != owner.home and not _is_below(path, owner.home):\n',
        new="    if False:\n",
        tests=(f"{CONFINEMENT}::TestMounts::test_whatever_working_directory_is_wanted",),
    ),
    Mutation(
        invariant=20,
        name="the system's users have containers",
        file="ds01d/containers/confinement.py",
        old="    if owner.uid < FIRST_USER_UID or owner.uid in _NOBODY:\n",
        new="    if owner.uid in _NOBODY:\n",
        tests=(f"{CONFINEMENT}::TestUsers::test_of_whom_there_are_none",),
    ),
    Mutation(
        invariant=20,
        name="namespaces of the host are the catalogue's",
        file="ds01d/containers/confinement.py",
        old="        if not allowed.fullmatch(mode):\n",
        new="        if False:\n",
        tests=(f"{CONFINEMENT}::TestUsers::test_in_no_namespace_of_the_host",),
    ),
    Mutation(
        invariant=20,
        name="root inside where that is root outside",
        file="ds01d/containers/confinement.py",
        old="if surroundings.root_inside else own_user\n",
        new="if setup.user else own_user\n",
        tests=(f"{CONFINEMENT}::TestUsers::test_nobody_is_root_inside_where_that_is_root_outside",),
    ),
    Mutation(
        invariant=20,
        name="what nobody knows is no excess",
        file="ds01d/adapters/docker/create_body.py",
        old="    return (*excess, *(key for key, value in host.items() if value))\n",
        new="    return (*excess,)\n",
        tests=(f"{CREATE_BODY}::test_excess_is_named",),
    ),
    Mutation(
        invariant=20,
        name="capabilities stay in a container",
        file="ds01d/adapters/docker/create_body.py",
        old='        host["CapDrop"] = ["ALL"]\n',
        new="        pass\n",
        tests=(f"{CONTAINERS}::test_a_container_from_its_creation_to_its_removal",),
    ),
    Mutation(
        invariant=20,
        name="any container of one's own is started",
        file="ds01d/containers/service.py",
        old="            self._require_confined(call, name)\n",
        new="            pass\n",
        tests=(
            f"{CONTAINERS}::TestStart::test_of_a_container_made_by_hand",
            f"{CONTAINERS}::TestStart::test_after_its_home_was_exchanged",
        ),
    ),
    Mutation(
        invariant=20,
        name="a container takes a slot that is another's by now",
        file="ds01d/containers/service.py",
        old="                call.lifecycle.rebooking.require_own_slots(container)\n",
        new="                pass\n",
        tests=(f"{CONTAINERS}::TestStart::test_on_a_slot_that_is_booked_for_it_no_more",),
    ),
    Mutation(
        invariant=20,
        name="a catalogue may be anybody's",
        file="ds01d/containers/order.py",
        old='    if place is not None:\n        raise NotPermitted(f"{file} is not',
        new='    if False:\n        raise NotPermitted(f"{file} is not',
        tests=(f"{CONTAINERS}::TestRefusals::test_of_a_catalogue_that_users_can_change",),
    ),
    Mutation(
        invariant=20,
        name="an image may be any",
        file="ds01d/containers/order.py",
        old="        image = find_image(catalogue, wanted)\n",
        new='        image = _make_image(wanted, "custom")\n',
        tests=(f"{CONTAINERS}::TestRefusals::test_of_an_order",),
    ),
    Mutation(
        invariant=20,
        name="a pid that is another process's is the engine",
        file="ds01d/adapters/host/engine_files.py",
        old="            if _read_start(process) != self._start:\n",
        new="            if False:\n",
        tests=(
            "tests/adapters/host/test_engine_files.py::test_an_engine_that_is_not_there_is_unknown",
        ),
    ),
    Mutation(
        invariant=20,
        name="what a killed process created stays",
        file="ds01d/containers/service.py",
        old="            self._creations.pending.remove_leftovers()\n",
        new="            pass\n",
        tests=(f"{CONTAINERS}::TestAnEnd::test_by_a_ds01d_that_is_killed",),
    ),
    Mutation(
        invariant=20,
        name="a creation outlives its caller",
        file="ds01d/containers/service_call.py",
        old="        if not self._request.is_open:\n",
        new="        if False:\n",
        tests=(f"{CONTAINERS}::TestAnEnd::test_by_a_caller_who_leaves",),
    ),
    Mutation(
        invariant=20,
        name="an invalid limit is no limit",
        file="ds01d/containers/order.py",
        old="    if resources.problem:\n",
        new="    if False:\n",
        tests=(f"{CONTAINERS}::TestRefusals::test_of_invalid_limits",),
    ),
    Mutation(
        invariant=1,
        name="books in which a container is missing are complete",
        file="ds01d/reconcile/docker_books.py",
        old="incomplete = explain_incomplete(snapshot, checkpoint)",
        new="incomplete = None",
        tests=(
            "tests/reconcile/test_docker_books.py::test_without_docker_nobody_gets_a_slot",
            "tests/reconcile/test_docker_books.py::test_beside_a_container_of_which_nothing_is_known_nobody_gets_a_slot",
        ),
    ),
    Mutation(
        invariant=1,
        name="what Docker does not say of those who run now does not matter",
        file="ds01d/reconcile/slot_pool.py",
        old='if doubt and self._config.books.kind == "docker":',
        new='if doubt and self._config.books.kind == "nothing":',
        tests=(
            "tests/reconcile/test_docker_books.py::test_where_docker_cannot_be_asked_for_what_runs_now_nobody_gets_a_slot",
        ),
    ),
    Mutation(
        invariant=2,
        name="a name that was free hides who has it since",
        file="ds01d/reconcile/docker_books.py",
        old="container.created >= asked",
        new="container.created < 0",
        tests=(
            "tests/reconcile/test_docker_books.py::test_what_is_made_under_a_name_that_was_free_is_in_the_books",
        ),
    ),
    Mutation(
        invariant=7,
        name="what another engine lists is the books",
        file="ds01d/reconcile/docker_books.py",
        old="trusted is None or same_engine(",
        new="True or same_engine(",
        tests=("tests/reconcile/test_docker_books.py::test_by_another_engine_nobody_gets_a_slot",),
    ),
    Mutation(
        invariant=3,
        name="what Docker lost had nothing",
        file="ds01d/decide/docker_books.py",
        old="return holdings | lost",
        new="return holdings",
        tests=(
            "tests/reconcile/test_docker_books.py::test_one_that_docker_lost_keeps_its_slot_until_its_absence_is_proven",
        ),
    ),
    Mutation(
        invariant=11,
        name="the end of a hold is forgotten",
        file="ds01d/reconcile/pass_results.py",
        old="replace(holding, devices=None) if is_over(holding)",
        new="holding if is_over(holding)",
        tests=(
            "tests/reconcile/test_docker_books.py::test_a_stopped_one_keeps_it_until_its_hold_is_over_and_has_it_again_when_it_starts",
        ),
    ),
    Mutation(
        invariant=2,
        name="an index means what it means today",
        file="ds01d/decide/docker_books.py",
        old="had.union(use.devices)",
        new="frozenset(use.devices)",
        tests=(
            "tests/reconcile/test_docker_books.py::test_of_an_index_that_may_mean_two_devices_both_are_taken",
        ),
    ),
    Mutation(
        invariant=8,
        name="what containers have is written",
        file="ds01d/model/books.py",
        old="        if not self.derived:",
        new="        if self.derived:",
        tests=(
            "tests/reconcile/test_docker_books.py::test_a_reservation_is_kept_until_its_container_exists",
        ),
    ),
    Mutation(
        invariant=18,
        name="a reservation is over whosever the container is",
        file="ds01d/decide/diff_metadata.py",
        old=" and not index.needs_record(name)",
        new="",
        tests=(
            "tests/reconcile/test_docker_books.py::test_only_where_it_says_whose_the_container_is_its_record_stays",
        ),
    ),
    Mutation(
        invariant=9,
        name="an accounting that fails ends the worker",
        file="ds01d/daemon/accounting.py",
        old="        except Exception as error:  # noqa: BLE001 - or the worker",
        new="        except ZeroDivisionError as error:  # or the worker",
        tests=(f"{ACCOUNTING}::test_what_nobody_expects_is_a_warning_and_ends_no_pass",),
    ),
    Mutation(
        invariant=9,
        name="a notice that fails ends the worker",
        file="ds01d/daemon/pass_runner.py",
        old="        except Exception as error:  # noqa: BLE001 - decision 253",
        new="        except ZeroDivisionError as error:  # decision 253",
        tests=(
            "tests/daemon/test_pass_runner.py::test_what_no_repair_depends_on_may_fail_in_any_way",
        ),
    ),
    Mutation(
        invariant=18,
        name="one byte in somebody's alerts stops their notices",
        file="ds01d/adapters/alerts_folder.py",
        old="    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):",
        new="    except (msgspec.DecodeError, RecursionError):",
        tests=(
            "tests/adapters/test_alerts_folder.py::test_an_element_of_any_bytes_is_kept_and_stops_no_notice",
        ),
    ),
    Mutation(
        invariant=9,
        name="a damaged accounting is an error that nobody expects",
        file="ds01d/adapters/accounting_file.py",
        old="        except Exception as error:  # a damaged byte",
        new="        except (sqlite3.Error, OSError) as error:  # a damaged byte",
        tests=(
            "tests/adapters/test_accounting_file.py::test_whatever_byte_is_damaged_it_is_an_error_that_the_daemon_expects",
        ),
    ),
    Mutation(
        invariant=2,
        name="what a container has can be released",
        file="ds01d/reconcile/allocator.py",
        old="            _require_not_derived(name, books)",
        new="            pass",
        tests=(
            "tests/reconcile/test_docker_books.py::test_a_reservation_is_released_and_what_a_container_has_is_not",
        ),
    ),
    Mutation(
        invariant=19,
        name="a guess fills a quota",
        file="ds01d/decide/bookings.py",
        old="    if not state.uncharged:\n",
        new="    if True:\n",
        tests=(
            "tests/decide/test_owner_guess.py::test_no_guess_fills_a_quota_or_takes_a_slot_from_the_container",
        ),
    ),
    Mutation(
        invariant=19,
        name="a label is certain wherever its container runs",
        file="ds01d/decide/owner_guess.py",
        old="return replace(owner, is_guess=not in_slice)",
        new="return replace(owner, is_guess=False)",
        tests=("tests/decide/test_owner_guess.py::test_whose_it_is_and_what_says_so",),
    ),
    Mutation(
        invariant=19,
        name="a slice is that of whoever its name ends with",
        file="ds01d/decide/owner_guess.py",
        old='r"ds01-[^-/]+-([^/]+)\\.slice"',
        new='r"ds01-.*-([^/]+)\\.slice"',
        tests=("tests/decide/test_owner_guess.py::test_whose_it_is_and_what_says_so",),
    ),
    Mutation(
        invariant=19,
        name="of several logins that fit a slice any one counts",
        file="ds01d/decide/owner_guess.py",
        old="return fitting[0] if len(fitting) == 1 else None",
        new="return fitting[0] if fitting else None",
        tests=("tests/decide/test_owner_guess.py::test_whose_it_is_and_what_says_so",),
    ),
    Mutation(
        invariant=19,
        name="a folder that is mounted gives rights",
        file="ds01d/decide/docker_owners.py",
        old="    if owner is None or (owner.is_guess and owner.source is not OwnerSource.LABEL):\n",
        new="    if owner is None:\n",
        tests=("tests/decide/test_owner_guess.py::test_of_the_guesses_only_a_label_gives_rights",),
    ),
    Mutation(
        invariant=1,
        name="an owners file that is empty names nobody any more",
        file="ds01d/adapters/host/owners_file.py",
        old="(*self._owners.items(), *new.items())",
        new="(*new.items(),)",
        tests=("tests/adapters/host/test_owners_file.py::test_who_is_named_no_more_stays",),
    ),
    Mutation(
        invariant=18,
        name="a record is dropped where a label alone says whose the container is",
        file="ds01d/decide/index.py",
        old="(owner is None or owner.is_guess or owner.user != record.user)",
        new="(owner is None or owner.user != record.user)",
        tests=("tests/decide/test_owner_guess.py::test_a_booking_is_no_guess",),
    ),
    Mutation(
        invariant=19,
        name="a job that has ended counts for the quota",
        file="ds01d/decide/docker_owners.py",
        old="            if limits.find_hold(user, container.type).seconds == 0:\n",
        new="            if False:\n",
        tests=(
            "tests/reconcile/test_freed_types.py::test_it_counts_for_no_quota_from_its_stop_on",
        ),
    ),
    Mutation(
        invariant=6,
        name="a stop that Docker reported is paced, though nothing was inferred",
        file="ds01d/decide/retention.py",
        old="        is_reported=_is_freed_by_stop(container, index),\n",
        new="",
        tests=("tests/reconcile/test_freed_types.py::test_no_pace_holds_them_back",),
    ),
    Mutation(
        invariant=2,
        name="a hold that is over is released though it is only to be reported",
        file="ds01d/decide/retention.py",
        old='    keeps = index.policy.expired_holds == "report" and',
        new="    keeps = False and",
        tests=(
            "tests/decide/test_findings.py::test_a_hold_that_is_over_is_reported_and_ends_with_the_container",
        ),
    ),
    Mutation(
        invariant=2,
        name="a GPU in MIG mode without MIG devices has no holder",
        file="ds01d/decide/docker_slots.py",
        old="if whole.mig and whole.uuid in occupied and whole.uuid not in with_parts:\n",
        new="if False:\n",
        tests=(
            "tests/decide/test_held_gpus.py::test_mig_that_was_switched_on_keeps_its_old_holder",
        ),
    ),
    Mutation(
        invariant=1,
        name="what /proc hides has ended",
        file="ds01d/adapters/host/reserving_processes.py",
        old="            return dict.fromkeys(processes, ProcessState.UNKNOWN)\n",
        new="            return dict.fromkeys(processes, ProcessState.ENDED)\n",
        tests=(f"{ASKING}::TestState::test_what_is_hidden_has_not_ended",),
    ),
    Mutation(
        invariant=1,
        name="a process that cannot be read has ended",
        file="ds01d/adapters/host/reserving_processes.py",
        old="            return ProcessState.UNKNOWN\n",
        new="            return ProcessState.ENDED\n",
        tests=(f"{ASKING}::TestState::test_what_cannot_be_read_has_not_ended",),
    ),
    Mutation(
        invariant=2,
        name="who asks is the fork that a script made for one line",
        file="ds01d/adapters/host/asking_process.py",
        old="    if entry.flags & _FORKED_WITHOUT_EXEC:\n",
        new="    if False:\n",
        tests=(f"{ASKING}::test_it_is_the_script",),
    ),
    Mutation(
        invariant=2,
        name="who asks is what a session was begun for",
        file="ds01d/adapters/host/asking_process.py",
        old="    if child.session == client:\n",
        new="    if False:\n",
        tests=(f"{ASKING}::test_it_cannot_be_told_where_a_session_was_begun_for_it",),
    ),
    Mutation(
        invariant=2,
        name="a reservation ends with the first container of its name",
        file="ds01d/decide/docker_books.py",
        old=" in (ProcessState.RUNS, ProcessState.UNKNOWN)\n",
        new=" in ()\n",
        tests=(f"{FOR_PROCESS}::TestGap::test_the_gap_is_nobodys[docker]",),
    ),
    Mutation(
        invariant=3,
        name="once a container came, the end of the process proves its absence",
        file="ds01d/decide/creations.py",
        old="    return identity is None or (",
        new="    return True or (",
        tests=(f"{FOR_PROCESS}::TestContainer::test_its_loss_takes_the_proofs_of_every_booking",),
    ),
    Mutation(
        invariant=3,
        name="no look for a container that was made at the last moment",
        file="ds01d/reconcile/confirm.py",
        old="        or verdict.proof not in (Proof.ABSENT, Proof.PROCESS_ENDED)\n",
        new="        or verdict.proof is not Proof.ABSENT\n",
        tests=(f"{FOR_PROCESS}::TestEnd::test_a_container_that_comes_at_the_last_moment_is_seen",),
    ),
    Mutation(
        invariant=3,
        name="another process with the pid is the one that reserved",
        file="ds01d/adapters/host/reserving_processes.py",
        old="        is_another = entry.started != process.started\n",
        new="        is_another = False\n",
        tests=(f"{ASKING}::TestState::test_another_with_its_pid_is_another",),
    ),
    Mutation(
        invariant=18,
        name="a reservation lives with somebody else's process",
        file="ds01d/adapters/host/asking_process.py",
        old="        if parent.command in _MANAGERS or not is_allowed:\n",
        new="        if parent.command in _MANAGERS:\n",
        tests=(f"{ASKING}::TestParents::test_somebody_elses_process_is_nobodys",),
    ),
    Mutation(
        invariant=18,
        name="a process that sleeps keeps a slot for ever",
        file="ds01d/decide/creations.py",
        old="    end = Boot(begun + index.policy.reservation_limit_s)\n",
        new="    end = Boot(index.snapshot.now.boot + index.policy.reservation_limit_s)\n",
        tests=(
            f"{FOR_PROCESS}::TestEnd::test_nobody_keeps_a_slot_for_ever_by_a_process_that_sleeps",
        ),
    ),
    Mutation(
        invariant=18,
        name="the number in a call of the lab's allocator raises the limit",
        file="ds01d/cli/allocator/v2/__main__.py",
        old="(arguments.max_gpus, _MOST)) if is_less else None\n",
        new="(arguments.max_gpus, _MOST))\n",
        tests=(f"{V2}::test_the_number_of_the_call_only_lowers_the_limit",),
    ),
    Mutation(
        invariant=2,
        name="what an ended process left is given to the next one",
        file="ds01d/service/abandoned.py",
        old="    allocator.release(name, identify_booking(name, record))\n",
        new="    pass\n",
        tests=("tests/service/test_booking.py::test_what_an_ended_process_left_is_nobodys",),
    ),
    Mutation(
        invariant=2,
        name="what an ended process left is given away though a container claimed it",
        file="ds01d/service/abandoned.py",
        old="    if reason := _find_doubt(name, world, config):\n",
        new="    if reason := _find_doubt(name, world, config) and False:\n",
        tests=(
            "tests/service/test_booking.py::test_what_an_ended_process_left_to_a_container_is_given_to_nobody_else",
        ),
    ),
    Mutation(
        invariant=2,
        name="what Docker lost is free once its name is used again",
        file="ds01d/decide/docker_books.py",
        old="        if id_ not in engine.containers and id_ not in destroyed\n",
        new="        if not (id_ in engine.containers or holding.name in engine.by_name)\n",
        tests=(
            "tests/reconcile/test_docker_books.py::test_one_that_docker_lost_keeps_its_slot_though_another_one_has_its_name",
        ),
    ),
)


def table() -> Iterator[str]:
    """The rows of docs/invariants.md: a table of the invariants, then one of the mutations."""
    yield "| | invariant | guarded by |"
    yield "|---|---|---|"
    for one in INVARIANTS:
        guards = ", ".join(f"`{guard.removeprefix('ds01d.')}`" for guard in one.guards)
        yield f"| {one.number} | {one.words} | {guards} |"
    yield ""
    yield "| | mutation | in | killed by |"
    yield "|---|---|---|---|"
    for mutation in MUTATIONS:
        tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in mutation.tests)
        file = mutation.file.removeprefix("ds01d/")
        yield f"| {mutation.invariant} | {mutation.name} | `{file}` | {tests} |"


def mutated(mutation: Mutation, root: Path = ROOT) -> str:
    """The source with the guard taken away. Raises ValueError if it does not apply once."""
    source = (root / mutation.file).read_text(encoding="utf-8")
    count = source.count(mutation.old)
    if count != 1:
        raise ValueError(f"{mutation.name}: its text stands {count} times in {mutation.file}")
    return source.replace(mutation.old, mutation.new)


_BINDS = (
    ast.FunctionDef
    | ast.AsyncFunctionDef
    | ast.ClassDef
    | ast.ExceptHandler
    | ast.MatchAs
    | ast.MatchStar
)


def find_unbound_names(source: str) -> set[str]:
    """Names that a module uses and nothing binds; where in the module does not matter.

    A mutation that has one fails for a reason of its own, and shows nothing of the tests.
    """
    bound = set(dir(builtins)) | {"__file__"}
    used: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, _BINDS):
            bound.add(node.name or "")
    return used - bound


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Try the mutations whose names have one of the words; how many survived."""
    if words == ["--doc"]:
        say(*table())
        return 0
    chosen = [one for one in MUTATIONS if not words or any(word in one.name for word in words)]
    if not chosen:
        say(f"no mutation has {' or '.join(words)} in its name")
        return 1
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="ds01d-mutations-") as folder:
        tree = Path(folder) / "tree"
        skip = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, tree, ignore=skip, symlinks=True)
        named = sorted({test for one in chosen for test in one.tests})
        if (failed := _failing(tree, named)) is not None:
            say(f"without any mutation {failed} fails already")
            return 1
        for one in chosen:
            began = time.monotonic()
            source = tree / one.file
            source.write_text(mutated(one), encoding="utf-8")
            killers = [_failing(tree, [test]) for test in one.tests]
            shutil.copy2(ROOT / one.file, source)
            alive = [test for test, killer in zip(one.tests, killers, strict=True) if not killer]
            survivors += bool(alive)
            said = f"SURVIVES {', '.join(alive)}" if alive else f"killed by {killers[0]}"
            seconds = time.monotonic() - began
            say(f"{one.invariant:>2}  {one.name}: {said} ({seconds:.0f} s)")
    say(f"{len(chosen)} mutations, {survivors} survived")
    return survivors


def _failing(tree: Path, tests: Sequence[str]) -> str | None:
    """The first of the tests that fails in a tree, None if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    if done.returncode != 1:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[-1].split()[1] if lines else "pytest"


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
