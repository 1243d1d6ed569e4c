"""A plan as lines of text for a reader, in English or Spanish."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from yunque.forecast.fit import Fit
from yunque.forecast.plan import Change, Plan, Remedy, row_limit
from yunque.forecast.remarks import Data, Remark, repeated, same_computation
from yunque.forecast.shape import count_parameters
from yunque.forecast.work import evaluated_tokens
from yunque.words import say
from yunque.words.writing import duration, gigabytes, number


def short_time(seconds: float, lang: str) -> str:
    """A duration; below ten seconds with its decimals."""
    if seconds < 0.1:
        return f"{number(1000 * seconds, lang, 1)} ms"
    return f"{number(seconds, lang, 2)} s" if seconds < 10 else duration(seconds)


def plan_lines(plan: Plan, data: Data, doubts: Sequence[Remark], lang: str) -> list[str]:
    """What the run is, whether it fits, what it takes, what could be changed, what to doubt."""
    job = plan.job
    sooner = " " + say("plan.early_stopping", lang) if plan.may_stop_early else ""
    lines = [
        say(
            f"plan.job_{job.method}",
            lang,
            parameters=count_parameters(job.shape).total,
            steps=job.steps,
            rows=job.train.batch_size,
            length=job.row_length,
            bits=job.adapt.quantize_bits,
        ),
        "",
        fits_line(plan, lang),
        say(
            "plan.time",
            lang,
            whole=short_time(plan.seconds.value, lang),
            low=short_time(plan.seconds.low, lang),
            high=short_time(plan.seconds.high, lang),
            update=short_time(plan.update_seconds.value, lang),
            evaluations=plan.evaluations,
            evaluation=short_time(plan.evaluation_seconds, lang),
        )
        + sooner,
        say(
            "plan.disk",
            lang,
            disk=gigabytes(plan.disk, lang),
            energy=energy(plan.kilowatt_hours.value, lang),
            low=energy(plan.kilowatt_hours.low, lang),
            high=energy(plan.kilowatt_hours.high, lang),
        ),
    ]
    machine = plan.machine
    if machine.measured:
        key = "plan.measured" if plan.outcomes else "plan.measured_first"
        lines.append(say(key, lang, machine=machine.name, outcomes=plan.outcomes))
        if not machine.steady:
            lines.append(
                say("plan.unsteady", lang, excess=number(100 * machine.unsteadiness, lang, 0))
            )
    else:
        lines.append(say("plan.guess", lang, machine=machine.name))
    if not data.train_tokens:
        lines.append(say("plan.unknown_data", lang, tokens=evaluated_tokens(job)))
    elif data.guessed:
        lines.append(say("plan.guessed_data", lang, tokens=data.train_tokens))
    lines += ["", *memory_table(plan, lang)]
    if plan.budget:
        lines.append(largest_line(plan, lang))
    if plan.changes:
        lines += ["", say("plan.table_changes", lang)]
        lines += table(
            (
                say(f"plan.change_{change.id}", lang, **change.numbers),
                effect(change, lang),
            )
            for change in plan.changes
        )
    if plan.remedy is not None:
        lines.append(remedy_line(plan, plan.remedy, lang))
    lines += ["", say("plan.second_opinion", lang)]
    lines += [f"  {doubt.text(lang)}" for doubt in doubts]
    if not doubts:
        lines.append("  " + say("plan.no_doubts", lang))
    again = repeated(job)
    if again is not None:
        numbers = dataclasses.asdict(again)
        lines.append("  " + say("plan.repeated", lang, **numbers))
        lines.append("  " + say("plan.repeated_fewer", lang, **numbers))
        if not again.in_range:
            lines.append("  " + say("plan.repeated_range", lang))
    better = same_computation(job)
    if better is not None and not 0.5 <= better.now_parameters / better.parameters <= 2:
        lines.append(
            "  "
            + say(
                "plan.same_computation",
                lang,
                parameters=better.parameters,
                tokens=better.tokens,
                now_parameters=better.now_parameters,
                now_tokens=better.now_tokens,
            )
        )
        if not better.in_range:
            lines.append("  " + say("plan.out_of_range", lang))
    return lines


def memory_table(plan: Plan, lang: str) -> list[str]:
    """Parts as rows, kinds of work as columns, in MB; below them the sums with their intervals."""
    head = [say(f"plan.moment_{name}", lang) for name in plan.moments]
    parts = {name: memory.parts() for name, memory in plan.moment_parts.items()}
    rows = [
        (say(f"plan.part_{part}", lang), [parts[name][part] for name in parts])
        for part in plan.memory.parts()
        if any(parts[name][part] for name in parts)
    ]
    peaks = plan.moments.values()
    rows.append((say("plan.part_all", lang), [round(peak.value) for peak in peaks]))
    rows.append((say("plan.part_low", lang), [round(peak.low) for peak in peaks]))
    rows.append((say("plan.part_high", lang), [round(peak.high) for peak in peaks]))
    title = say("plan.table_parts", lang)
    wide = max(len(title), *(len(name) + 2 for name, _ in rows))
    lines = [f"{title:<{wide}}" + "".join(f"{name:>12}" for name in head)]
    for name, sizes in rows:
        shown = (
            number(size / 1e6, lang, 1 if size < 1e7 else 0) if size else "-" for size in sizes
        )
        lines.append(f"{'  ' + name:<{wide}}" + "".join(f"{text:>12}" for text in shown))
    return lines


def energy(kilowatt_hours: float, lang: str) -> str:
    """Kilowatt hours; below one with three decimals, where those are all 0 with six."""
    decimals = 1 if kilowatt_hours >= 1 else 3 if kilowatt_hours >= 1e-3 else 6
    return number(kilowatt_hours, lang, decimals)


def effect(change: Change, lang: str) -> str:
    """What a change gives in memory and costs in time."""
    return say(
        "plan.effect_enough" if change.enough else "plan.effect",
        lang,
        gain=gigabytes(change.gain, lang),
        memory=gigabytes(change.memory, lang),
        cost=more_time(change.times, lang),
    )


def more_time(times: float, lang: str) -> str:
    """A multiple of the time as what is added to it or saved."""
    cost = round(100 * (times - 1))
    return f"{'+' if cost >= 0 else '−'}{number(abs(cost), lang)} %"


def largest_line(plan: Plan, lang: str) -> str:
    """How many rows at once and how long a row surely fit, and where nothing larger was tried."""
    rows, length, job = plan.largest_micro_batch, plan.longest_row, plan.job
    key = "rows_none" if not rows else "rows_all" if rows == job.train.batch_size else "rows"
    first = say(f"plan.largest_{key}", lang, rows=rows, length=job.row_length)
    limit = row_limit(job)
    key = "length_none" if not length else "length" if length + 16 <= limit else "length_all"
    if key == "length_all" and job.method == "pretrain":
        key = "length_least"
    second = say(f"plan.largest_{key}", lang, rows=job.micro_batch, length=length)
    return f"{first} {second}"


def remedy_line(plan: Plan, remedy: Remedy, lang: str) -> str:
    """What has to be changed so that a run fits, or that nothing is enough."""
    numbers = {
        "memory": gigabytes(plan.budget, lang),
        "peak": gigabytes(remedy.peak.value, lang),
        "high": gigabytes(remedy.peak.high, lang),
        "cost": more_time(remedy.times, lang),
    }
    if not remedy.fits:
        return say("plan.remedy_none", lang, **numbers)
    job = remedy.job
    sizes = {"rows": job.micro_batch, "batch": job.train.batch_size, "length": job.row_length}
    # A change is its flag, then what it does.
    flags = [say(f"plan.change_{name}", lang, **sizes).partition(":")[0] for name in remedy.ids]
    joined = say("plan.and", lang).join([", ".join(flags[:-1]), flags[-1]][len(flags) == 1 :])
    return say("plan.remedy", lang, changes=joined, **numbers)


def fits_line(plan: Plan, lang: str) -> str:
    """One sentence: does it fit?"""
    memory = plan.budget
    key = (
        "plan.memory_unknown"
        if not memory
        else "plan.fits"
        if plan.fits
        else "plan.tight"
        if plan.tight
        else "plan.unlikely"
        if plan.peak.low <= memory
        else "plan.too_large"
    )
    return say(
        key,
        lang,
        peak=gigabytes(plan.peak.value, lang),
        low=gigabytes(plan.peak.low, lang),
        high=gigabytes(plan.peak.high, lang),
        memory=gigabytes(memory, lang),
    )


def fit_lines(chosen: Fit, lang: str) -> list[str]:
    """What was chosen so that a run fits into its memory, and why."""
    parts, job = chosen.memory.parts(), chosen.job
    largest = sorted(parts, key=parts.__getitem__, reverse=True)[:3]
    named = ", ".join(
        f"{say(f'plan.part_{part}', lang)} {number(parts[part] / 1e9, lang, 2)}" for part in largest
    )
    words = {
        "need": number(chosen.memory.total / 1e9, lang, 2),
        "most": number(chosen.most / 1e9, lang, 2),
        "budget": number(chosen.budget / 1e9, lang, 2),
    }
    key = "plan.fit_memory" if chosen.fits else "plan.fit_none"
    numbers = {
        "rows": job.micro_batch,
        "batch": job.train.batch_size,
        "length": job.row_length,
    }
    steps = [say(f"plan.fit_{step}", lang, **numbers) for step in chosen.steps]
    return [say(key, lang, parts=named, **words), *(steps if chosen.fits else ())]


def before_line(plan: Plan, lang: str) -> str:
    """The line that a run shows before its first step."""
    if plan.machine.memory and not plan.fits and not plan.tight:
        return say(
            "plan.before_too_large",
            lang,
            peak=gigabytes(plan.peak.value, lang),
            memory=gigabytes(plan.machine.memory, lang),
        )
    return say(
        "plan.before" if plan.machine.measured else "plan.before_untimed",
        lang,
        time=short_time(plan.seconds.value, lang),
        low=short_time(plan.seconds.low, lang),
        high=short_time(plan.seconds.high, lang),
        peak=gigabytes(plan.peak.value, lang),
        least=gigabytes(plan.peak.low, lang),
        most=gigabytes(plan.peak.high, lang),
        disk=gigabytes(plan.disk, lang),
    )


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second aligned to the right of the widest first."""
    pairs = list(rows)
    width = max((len(left) for left, _ in pairs), default=0)
    return [f"  {left:<{width}}  {right}" for left, right in pairs]
