"""A plan as lines of text for a reader, in English or Spanish."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from yunque.forecast.fit import Fit
from yunque.forecast.plan import Change, Plan
from yunque.forecast.remarks import Data, Remark, repeated, same_computation
from yunque.forecast.shape import count_parameters
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
        ),
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
        lines.append(say("plan.measured", lang, machine=machine.name, outcomes=plan.outcomes))
        if not machine.steady:
            lines.append(
                say("plan.unsteady", lang, excess=number(100 * machine.unsteadiness, lang, 0))
            )
    else:
        lines.append(say("plan.guess", lang, machine=machine.name))
    if not data.train_tokens:
        lines.append(say("plan.unknown_data", lang))
    elif data.guessed:
        lines.append(say("plan.guessed_data", lang, tokens=data.train_tokens))
    lines += ["", *memory_table(plan, lang)]
    lines.append(say("plan.largest", lang, rows=plan.largest_micro_batch, length=plan.longest_row))
    if plan.changes:
        lines += ["", say("plan.table_changes", lang)]
        lines += table(
            (
                say(f"plan.change_{change.id}", lang, **change.numbers),
                effect(change, lang),
            )
            for change in plan.changes
        )
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
    cost = round(100 * (change.times - 1))
    return say(
        "plan.effect",
        lang,
        gain=gigabytes(change.gain, lang),
        memory=gigabytes(change.memory, lang),
        cost=f"{'+' if cost >= 0 else '−'}{number(abs(cost), lang)} %",
    )


def fits_line(plan: Plan, lang: str) -> str:
    """One sentence: does it fit?"""
    memory = plan.machine.memory
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
        disk=gigabytes(plan.disk, lang),
    )


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second aligned to the right of the widest first."""
    pairs = list(rows)
    width = max((len(left) for left, _ in pairs), default=0)
    return [f"  {left:<{width}}  {right}" for left, right in pairs]
