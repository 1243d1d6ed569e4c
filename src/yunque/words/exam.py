"""Sentences of exams, and what kinds of questions are called."""

from yunque.words.writing import visible

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
    # Our own kinds of question: those of the embedded tutor, and what is checked where a file
    # names no kind.
    "exam.kind.addition": ("addition", "suma"),
    "exam.kind.subtraction": ("subtraction", "resta"),
    "exam.kind.multiplication": ("multiplication", "multiplicación"),
    "exam.kind.division": ("division", "división"),
    "exam.kind.missing": ("missing number", "número que falta"),
    "exam.kind.word_problem": ("word problem", "problema con enunciado"),
    "exam.kind.number": ("number", "número"),
    "exam.kind.exact": ("exact text", "texto exacto"),
    "exam.kind.choice": ("choice", "opción"),
    "exam.kind.regex": ("pattern", "patrón"),
    "exam.written": (
        "Questions, replies and marks are in {path}",
        "Las preguntas, las respuestas y su corrección están en {path}",
    ),
}


def kind_name(kind: str, lang: str) -> str:
    """A kind of question in the reader's language; one of the user's own as it stands."""
    pair = WORDS.get(f"exam.kind.{kind}")
    return visible(kind) if pair is None else pair[lang == "es"]
