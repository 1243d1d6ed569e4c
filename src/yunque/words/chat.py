"""Sentences of a chat."""

WORDS: dict[str, tuple[str, str]] = {
    "chat.prompt": ("you> ", "tú> "),
    "chat.hello": (
        "{model} answers. Its context holds {context:,} tokens. /help lists the commands, Ctrl-D "
        "ends.",
        "Responde {model}. En su contexto caben {context:,} tokens. /help enumera las órdenes; "
        "Ctrl-D termina.",
    ),
    "chat.help": (
        "  /reset           begin a new conversation; the system prompt stays\n"
        "  /undo            take the last question and its answer back\n"
        "  /temperature N   0: always the most probable token; higher: freer\n"
        "  /save FILE       write the transcript (.json or .jsonl)\n"
        "  /help            this list\n"
        "  /quit            end; so do Ctrl-D and Ctrl-C at the prompt\n"
        "Ctrl-C during an answer stops it and keeps what was written. A question that begins\n"
        "with / gets a space before it.",
        "  /reset           empieza otra conversación; las instrucciones iniciales se mantienen\n"
        "  /undo            retira la última pregunta con su respuesta\n"
        "  /temperature N   0: siempre el token más probable; más alta: con más libertad\n"
        "  /save ARCHIVO    guarda la conversación (.json o .jsonl)\n"
        "  /help            esta lista\n"
        "  /quit            termina, igual que Ctrl-D o Ctrl-C cuando se espera una pregunta\n"
        "Ctrl-C durante una respuesta la detiene y conserva lo escrito. Si una pregunta empieza\n"
        "por /, pon un espacio delante.",
    ),
    "chat.dropped": (
        "The conversation has outgrown the context of {context:,} tokens: from here on the model "
        "no longer sees its oldest turns. The transcript keeps them.",
        "La conversación ya no cabe en el contexto de {context:,} tokens: desde aquí el modelo no "
        "ve los turnos más antiguos. La transcripción los conserva.",
    ),
    "chat.cut": (
        "The answer was cut at {tokens:,} tokens, as --max-new-tokens says.",
        "La respuesta se cortó a los {tokens:,} tokens, el límite de --max-new-tokens.",
    ),
    "chat.full": (
        "The answer was cut at {tokens:,} tokens: the context of {context:,} is full.",
        "La respuesta se cortó a los {tokens:,} tokens: el contexto de {context:,} está lleno.",
    ),
    "chat.stopped": (
        "Stopped; what was written is kept. /undo takes it back.",
        "Detenida; lo escrito se conserva. /undo lo retira.",
    ),
    "chat.empty": (
        "The model wrote nothing, so the question was taken back.",
        "El modelo no escribió nada; la pregunta se ha retirado.",
    ),
    "chat.undone": (
        "Taken back: {question}",
        "Retirada: {question}",
    ),
    "chat.reset": (
        "A new conversation.",
        "Conversación nueva.",
    ),
    "chat.temperature": (
        "The temperature is {temperature}.",
        "La temperatura es {temperature}.",
    ),
    "chat.saved": (
        "The transcript is in {path} ({turns:,} {turns:|turn|turns}).",
        "La transcripción está en {path} ({turns:,} {turns:|turno|turnos}).",
    ),
}
