"""Sentences of the model card."""

WORDS: dict[str, tuple[str, str]] = {
    "export.what": (
        "A decoder of the {family} family with {parameters} parameters, stored as {dtype}. "
        "Blocks: {layers}; width: {width}; attention heads: {heads} ({kv_heads} for keys and "
        "values); context: {context} tokens; vocabulary: {vocab} tokens.",
        "Un decodificador de la familia {family} con {parameters} parámetros, guardados en "
        "{dtype}. Bloques: {layers}; ancho: {width}; cabezas de atención: {heads} ({kv_heads} "
        "para claves y valores); contexto: {context} tokens; vocabulario: {vocab} tokens.",
    ),
    "export.what_computed": (
        "A language model of the architecture {family} with {parameters} parameters, stored as "
        "{dtype}. Context: {context} tokens; vocabulary: {vocab} tokens.",
        "Un modelo de lenguaje de arquitectura {family} con {parameters} parámetros, guardados en "
        "{dtype}. Contexto: {context} tokens; vocabulario: {vocab} tokens.",
    ),
    "export.origin": ("Where it comes from", "De dónde viene"),
    "export.scratch": (
        "Trained from scratch with Yunque {version}; no other model went into it.",
        "Entrenado desde cero con Yunque {version}; no parte de ningún otro modelo.",
    ),
    "export.tuned": (
        "Trained with Yunque {version} on top of {base}.",
        "Entrenado con Yunque {version} a partir de {base}.",
    ),
    "export.converted": (
        "Converted with Yunque {version} from {base}, without further training.",
        "Convertido con Yunque {version} desde {base}, sin entrenarlo más.",
    ),
    "export.license": ("Licence: {license}.", "Licencia: {license}."),
    "export.no_license": (
        "Licence: not stated. Whoever publishes this folder must say it.",
        "Licencia: no consta. Quien publique esta carpeta debe indicarla.",
    ),
    "export.data": ("Data", "Datos"),
    "export.sources": ("Sources: {names}.", "Fuentes: {names}."),
    "export.tokens": (
        "Documents: {documents}; tokens for training: {train}; for validation: {val}.",
        "Documentos: {documents}; tokens para entrenar: {train}; para validar: {val}.",
    ),
    "export.fingerprint": (
        "Fingerprint of sources and settings: `{fingerprint}`",
        "Huella de las fuentes y los ajustes: `{fingerprint}`",
    ),
    "export.results": ("Results", "Resultados"),
    "export.training": (
        "Updates: {steps}; tokens seen: {tokens}; time: {time}; seed: {seed}.",
        "Actualizaciones: {steps}; tokens vistos: {tokens}; tiempo: {time}; semilla: {seed}.",
    ),
    "export.loss_val": (
        "Validation loss {val} nats per token (perplexity {ppl}), training loss {train}, at "
        "update {step}, which is the model here.",
        "Pérdida de validación: {val} nats por token (perplejidad {ppl}); de entrenamiento: "
        "{train}; ambas en la actualización {step}, que es la de este modelo.",
    ),
    "export.loss_train": (
        "Training loss {train} nats per token at update {step}, which is the model here. There "
        "was no validation set.",
        "Pérdida de entrenamiento: {train} nats por token en la actualización {step}, que es la "
        "de este modelo. No hubo validación.",
    ),
    "export.exam": (
        "Exam: {right} of {total} answers right at update {step}.",
        "Examen: {right} respuestas correctas de {total} en la actualización {step}.",
    ),
    "export.unknown": ("What is not known", "Lo que no se sabe"),
    "export.unknown_data": (
        "What it was trained on, how long, and with what losses: its files do not say.",
        "Con qué se entrenó, cuánto y con qué pérdidas: sus archivos no lo dicen.",
    ),
    "export.unknown_val": (
        "Whether it generalises: no loss on held-out text was measured.",
        "Si generaliza: no se midió la pérdida en texto apartado.",
    ),
    "export.unknown_exam": (
        "What it can do: it sat no exam.",
        "Qué sabe hacer: no pasó ningún examen.",
    ),
    "export.unknown_license": (
        "Under which licence it may be used, and what its data allow.",
        "Con qué licencia puede usarse, y qué permiten sus datos.",
    ),
    "export.certificate": ("This copy", "Esta copia"),
    "export.read_back": (
        "Read back from disk by {reader} and compared with the model it came from: the same token "
        "ids for {asked}, the same end of text, the same greedy texts; the largest difference of "
        "two logits is {logits}, the largest KL divergence {kl} nats.",
        "Leída del disco por {reader} y comparada con el modelo de origen: los mismos tokens en "
        "{asked}, el mismo final de texto, los mismos textos voraces; la mayor diferencia entre "
        "dos logits es {logits}, y la mayor divergencia KL, {kl} nats.",
    ),
    "export.read_back_rounded": (
        "The weights were rounded to the number format of this copy, which is therefore not "
        "exactly the model it came from. It holds what was to be written: read back from disk by "
        "{reader} and compared with the rounded model, it has the same weights, the same token "
        "ids for {asked}, the same end of text and the same greedy texts; the largest difference "
        "of two logits is {logits}, the largest KL divergence {kl} nats.",
        "Los pesos se redondearon al formato numérico de esta copia, que por eso no es exactamente "
        "el modelo de origen. Contiene lo que debía escribirse: leída del disco por {reader} y "
        "comparada con el modelo redondeado, tiene los mismos pesos, los mismos tokens en {asked}, "
        "el mismo final de texto y los mismos textos voraces; la mayor diferencia entre dos logits "
        "es {logits}, y la mayor divergencia KL, {kl} nats.",
    ),
    "export.rounding": (
        "Measured against the model before rounding, both computed in float32: a logit differs by "
        "up to {logits}, the KL divergence is at most {kl} nats, the most likely token is the same "
        "at {share} of {positions} positions, and {same_texts} of {texts} greedy texts are the "
        "same.",
        "Frente al modelo sin redondear, calculados ambos en float32: un logit difiere hasta "
        "{logits}, la divergencia KL es como mucho de {kl} nats, el token más probable coincide en "
        "el {share} de {positions} posiciones, y de {texts} textos voraces coinciden {same_texts}.",
    ),
    "export.asked_usable": ("prompts and conversations", "textos y conversaciones"),
    "export.asked_none": ("prompts", "textos"),
    "export.asked_unusable": ("prompts", "textos"),
    "export.template_none": (
        "There is no chat template: conversations are not certified.",
        "No hay plantilla de conversación: de las conversaciones no se certifica nada.",
    ),
    "export.template_unusable": (
        "There is no usable chat template, and conversations are not certified: {reason}",
        "No hay plantilla de conversación que sirva, y de las conversaciones no se certifica nada "
        "(el motivo, en inglés): {reason}",
    ),
    "export.figures": (
        "All figures are in certificate.json.",
        "Todas las cifras están en certificate.json.",
    ),
    "export.use": ("Use", "Uso"),
}
