"""Sentences of the demo."""

WORDS: dict[str, tuple[str, str]] = {
    "demo.samples": (
        "What the tutor says to problems that it never saw:",
        "Lo que responde el tutor a problemas que nunca vio:",
    ),
    "demo.exam": (
        "Exam of {total} problems, none of them in the training text in any form:",
        "Examen de {total} problemas; ninguno está, en ninguna forma, en lo que se entrenó:",
    ),
    "demo.addition": ("additions", "sumas"),
    "demo.subtraction": ("subtractions", "restas"),
    "demo.multiplication": ("multiplications", "multiplicaciones"),
    "demo.division": ("divisions", "divisiones"),
    "demo.missing": ("missing numbers", "números que faltan"),
    "demo.word_problem": ("word problems", "problemas con texto"),
    "demo.total": (
        "  in all: {right} of {total} right, {share} (95 % interval {low} to {high})",
        "  en total: {right} de {total} bien, {share} (intervalo del 95 %: de {low} a {high})",
    ),
    "demo.losses": (
        "Loss in nats per token: training {train}, validation {loss} (perplexity {ppl}), best at "
        "update {step} of {steps}; {time} of training.",
        "Pérdida en nats por token: entrenamiento {train}, validación {loss} (perplejidad {ppl}), "
        "la mejor en la actualización {step} de {steps}; {time} de entrenamiento.",
    ),
    "demo.folder": (
        "Everything of this run is in {run}: best/, last/, checkpoints/, log.jsonl, report.html.",
        "Todo lo de este entrenamiento está en {run}: best/, last/, checkpoints/, log.jsonl, "
        "report.html.",
    ),
    "demo.next": (
        "Three commands worth typing now:",
        "Tres órdenes que vale la pena probar ahora:",
    ),
    "demo.ask": ("What is 47 + 38?", "¿Cuánto es 47 + 38?"),
    "demo.explain": ("7 + 8 = 15", "7 + 8 = 15"),
}
