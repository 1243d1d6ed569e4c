"""Sentences of exams."""

WORDS: dict[str, tuple[str, str]] = {
    "exam.progress": ("Exam: questions answered", "Examen: preguntas respondidas"),
    "exam.no_template": (
        "This model has no chat template: each question is asked in plain words, after «User:», "
        "and what it writes after «Assistant:» is its reply, as in a fine-tuning of it.",
        "Este modelo no tiene plantilla de chat: cada pregunta se le hace con palabras corrientes, "
        "tras «User:», y su respuesta es lo que escribe después de «Assistant:», como cuando se "
        "sigue entrenando.",
    ),
    "exam.total": (
        "Exam: {right} of {total} right, {share} (95 % interval {low} to {high})",
        "Examen: {right} de {total} bien, {share} (intervalo del 95 %: de {low} a {high})",
    ),
    "exam.written": (
        "Questions, replies and marks are in {path}",
        "Las preguntas, las respuestas y su corrección están en {path}",
    ),
}
