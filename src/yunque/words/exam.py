"""Sentences of exams."""

WORDS: dict[str, tuple[str, str]] = {
    "exam.progress": ("Exam: questions answered", "Examen: preguntas respondidas"),
    "exam.no_template": (
        "This model has no chat template: each question is asked as plain text, and what it writes "
        "after the line feed is its reply.",
        "Este modelo no tiene plantilla de chat: cada pregunta se le hace como texto sin más, y su "
        "respuesta es lo que escribe después del salto de línea.",
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
