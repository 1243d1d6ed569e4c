"""Sentences of the command line."""

WORDS: dict[str, tuple[str, str]] = {
    "cli.tagline": (
        "Yunque trains language models on the machine you have and says whether it worked.",
        "Yunque entrena modelos de lenguaje en la máquina que tienes y dice si funcionó.",
    ),
    "cli.usage": (
        "usage: yunque VERB [flags]      yunque VERB --help explains a verb",
        "uso: yunque VERBO [opciones]    yunque VERBO --help explica un verbo",
    ),
    "cli.more": (
        "Every verb takes --json (one JSON object on standard output), --lang es|en, --quiet and\n"
        "--debug. Exit codes: 0 done, 1 our fault, 2 bad usage or input, 74 reading or writing\n"
        "failed, 130/143 stopped by a signal with the state saved. First steps: yunque demo",
        "Todos los verbos admiten --json (un objeto JSON en la salida), --lang es|en, --quiet y\n"
        "--debug. Códigos de salida: 0 hecho, 1 fallo nuestro, 2 uso o datos incorrectos, 74 no\n"
        "se pudo leer o escribir, 130/143 detenido por una señal con el estado guardado.\n"
        "Para empezar: yunque demo",
    ),
    "cli.verb_demo": (
        "train a small maths tutor in five minutes and see everything",
        "entrena un pequeño tutor de matemáticas en cinco minutos y lo muestra todo",
    ),
    "cli.verb_prepare": ("text → token files", "texto → archivos de tokens"),
    "cli.verb_pretrain": (
        "train a GPT from scratch on your own text",
        "entrena un GPT desde cero con tu propio texto",
    ),
    "cli.verb_finetune": (
        "train a public model further: full, LoRA, QLoRA; exam before and after",
        "sigue entrenando un modelo público: completo, LoRA, QLoRA; examen antes y después",
    ),
    "cli.replayed": (
        "Confirmed: {steps} of {updates} updates, from number {first} on, give the losses, "
        "learning rates and gradient norms of the log, bit for bit; so do {measured} of "
        "{evaluations} evaluations. {tensors} tensors of a checkpoint compared.",
        "Confirmado: {steps} de {updates} actualizaciones, desde la número {first}, dan las "
        "pérdidas, las tasas de aprendizaje y las normas del gradiente del registro, bit a bit; "
        "también {measured} de {evaluations} evaluaciones. {tensors} tensores de un punto de "
        "control comparados.",
    ),
    "cli.not_replayed": (
        "Not looked at: {updates} updates and {evaluations} evaluations. --steps takes more.",
        "Sin comprobar: {updates} actualizaciones y {evaluations} evaluaciones. Con --steps se "
        "toman más.",
    ),
    "cli.refuted": (
        "Refuted: {steps} updates from number {first} on do not give what the log says "
        "({tensors} tensors of a checkpoint compared).",
        "Refutado: {steps} actualizaciones desde la número {first} no dan lo que dice el registro "
        "({tensors} tensores de un punto de control comparados).",
    ),
    "cli.difference": (
        "  update {step}, {name}: in the run {logged}, replayed {replayed}",
        "  actualización {step}, {name}: en la ejecución {logged}, al repetirla {replayed}",
    ),
    "cli.changed": (
        "Not as when the run was made, so equal bytes are not promised: {what}",
        "No es como cuando se hizo la ejecución, y entonces no se prometen bytes iguales: {what}",
    ),
    "cli.verb_resume": (
        "continue an interrupted run exactly",
        "continúa con exactitud un entrenamiento interrumpido",
    ),
    "cli.verb_generate": ("let a model write", "hace escribir a un modelo"),
    "cli.verb_chat": (
        "talk with a model, and keep the conversation to train on",
        "conversa con un modelo y guarda la conversación para entrenar con ella",
    ),
    "cli.verb_evaluate": (
        "loss, perplexity and bits per byte over any text; marks in an exam",
        "pérdida, perplejidad y bits por byte sobre cualquier texto; nota en un examen",
    ),
    "cli.verb_explain": (
        "what the model thinks of each token",
        "qué piensa el modelo de cada token",
    ),
    "cli.verb_convert": (
        "a model in a format that other programs open, read back and compared",
        "un modelo en un formato que abren otros programas, releído y comparado",
    ),
    "cli.verb_report": (
        "what happened in a training, as a page",
        "qué pasó en un entrenamiento, en una página",
    ),
    "cli.verb_plan": (
        "memory, time and disk of a run before it runs, and a second opinion",
        "memoria, tiempo y disco antes de entrenar, y una segunda opinión",
    ),
    "cli.verb_doctor": (
        "is everything there, from Python to CUDA?",
        "¿está todo, desde Python hasta CUDA?",
    ),
    "cli.prepared": ("Token files are in {folder}:", "Los archivos de tokens están en {folder}:"),
    "cli.prepared_text": (
        "  {files:,} {files:|file|files}, {documents:,} {documents:|document|documents}, "
        "{characters:,} characters, {size}",
        "  {files:,} {files:|archivo|archivos}, {documents:,} {documents:|documento|documentos}, "
        "{characters:,} caracteres, {size}",
    ),
    "cli.prepared_tokens": (
        "  tokens: {tokens}; {per} bytes each; vocabulary of {vocab}; {unknown} unknown",
        "  tokens: {tokens}; {per} bytes cada uno; vocabulario de {vocab}; {unknown} desconocidos",
    ),
    "cli.prepared_speed": (
        "  {seconds} at {speed}/s",
        "  {seconds} a {speed}/s",
    ),
    "cli.prepared_reused": (
        "  They were already there, made from the same text in the same way: nothing to do.",
        "  Ya estaban, hechos con el mismo texto y del mismo modo: no hubo nada que hacer.",
    ),
    "cli.prepared_next": (
        "Next: yunque pretrain {folder} --out runs/first",
        "Ahora: yunque pretrain {folder} --out runs/primero",
    ),
    "cli.stopped_steps": (
        "Done: all {steps} updates were made. Run folder: {run}",
        "Hecho: se completaron las {steps} actualizaciones. Carpeta: {run}",
    ),
    "cli.stopped_early_stopping": (
        "Stopped early at update {steps}: the validation loss no longer improved. "
        "Run folder: {run}",
        "Parada temprana en la actualización {steps}: la pérdida de validación ya no mejoraba. "
        "Carpeta: {run}",
    ),
    "cli.stopped_by_exam": (
        "Stopped early at update {steps}: the exam no longer improved. Run folder: {run}",
        "Parada temprana en la actualización {steps}: el examen ya no mejoraba. Carpeta: {run}",
    ),
    "cli.stopped_interrupted": (
        "Interrupted at update {steps}; everything is saved. To go on: yunque resume {run}",
        "Interrumpido en la actualización {steps}; todo está guardado. "
        "Para continuar: yunque resume {run}",
    ),
    "cli.level_exact": (
        "Resumed exactly: every loss and weight will be the ones of an uninterrupted run.",
        "Reanudado con exactitud: cada pérdida y cada peso serán los de un entrenamiento sin "
        "interrumpir.",
    ),
    "cli.level_reproducible": (
        "Resumed reproducibly: same data, order, dropout and schedule, but sums may round "
        "differently. Changed: {what}",
        "Reanudado de forma reproducible: mismos datos, orden, dropout y calendario, aunque las "
        "sumas pueden redondearse de otro modo. Ha cambiado: {what}",
    ),
    "cli.level_continued": (
        "Continued as another experiment from the same weights. Changed: {what}",
        "Continuado como otro experimento desde los mismos pesos. Ha cambiado: {what}",
    ),
    "cli.stopped_non_finite": (
        "Stopped at update {steps}: the loss is no longer a finite number. Start again with a "
        "learning rate ten times lower. Run folder: {run}",
        "Detenido en la actualización {steps}: la pérdida ya no es un número finito. Empieza de "
        "nuevo con una tasa de aprendizaje diez veces menor. Carpeta: {run}",
    ),
    "cli.stopped_spikes": (
        "Stopped at update {steps}: the loss or the gradient rose to spikes again and again, and "
        "going back did not help. Start again with a lower learning rate, or with a higher "
        "--spike-deviations. Run folder: {run}",
        "Detenido en la actualización {steps}: la pérdida o el gradiente daba un pico tras otro, y "
        "volver atrás no ha servido. Empieza de nuevo con una tasa de aprendizaje menor o con un "
        "--spike-deviations mayor. Carpeta: {run}",
    ),
    "cli.best_val": (
        "Best validation loss {loss} nats per token (perplexity {ppl}) at update {step}; that "
        "model is in best/.",
        "Mejor pérdida de validación: {loss} nats por token (perplejidad {ppl}) en la "
        "actualización {step}; ese modelo está en best/.",
    ),
    "cli.best_train": (
        "Best training loss {loss} nats per token (perplexity {ppl}) at update {step}. There was "
        "no validation set, so this does not say whether the model generalises.",
        "Mejor pérdida de entrenamiento: {loss} nats por token (perplejidad {ppl}) en la "
        "actualización {step}. No hubo validación, así que esto no dice si el modelo generaliza.",
    ),
    "cli.run_next": (
        'Next:\n  yunque report {run}\n  yunque generate {run} --prompt "…"\n'
        '  yunque explain {run} --text "…"',
        'Ahora:\n  yunque report {run}\n  yunque generate {run} --prompt "…"\n'
        '  yunque explain {run} --text "…"',
    ),
    "cli.interrupted": (
        "Interrupted. What was finished is kept; a training that had not begun begins anew with "
        "the same command.",
        "Interrumpido. Lo terminado se conserva; un entrenamiento que no había empezado vuelve a "
        "empezar con la misma orden.",
    ),
    "cli.no_checkpoint": (
        "There is no checkpoint yet: the run begins again from its first step.",
        "Todavía no hay ningún punto de control: se empieza de nuevo desde el primer paso.",
    ),
    "cli.kept_type_frozen": (
        "The base's files hold {stored}, in which this device ({device}) does not compute well: "
        "its frozen weights are kept in {kept}.",
        "Los archivos del modelo base guardan {stored}, tipo en el que este dispositivo ({device}) "
        "no calcula bien: sus pesos congelados se mantienen en {kept}.",
    ),
    "cli.kept_type_full": (
        "The base's files hold {stored}; all its weights are trained, and so they are kept in "
        "{kept} on the {device}: in 16 bits small changes would be lost.",
        "Los archivos del modelo base guardan {stored}; como se entrenan todos sus pesos, se "
        "mantienen en {kept} ({device}): en 16 bits se perderían los cambios pequeños.",
    ),
    "cli.added_tokens": (
        "{names}: {count:|a control token|control tokens} of the vocabulary; each new row begins "
        "as the mean of the rows that the base has.",
        "{names}: {count:|token|tokens} de control del vocabulario; cada fila nueva empieza como "
        "la media de las que tiene la base.",
    ),
    "cli.long_warmup": (
        "The warm-up takes {warmup} of {steps} updates: the learning rate hardly leaves it. Give "
        "--warmup-steps {fitting}, or more updates.",
        "El calentamiento ocupa {warmup} de {steps} actualizaciones: la tasa de aprendizaje apenas "
        "sale de él. Usa --warmup-steps {fitting} o más actualizaciones.",
    ),
    "cli.many_passes": (
        "{passes:.0f} passes over {documents:,} {documents:|example|examples}: so many over so few "
        "have been seen to memorise them and make the model worse than its base, while the loss "
        "fell. Two or three passes are usual: --epochs 3.",
        "{passes:.0f} pasadas sobre {documents:,} {documents:|ejemplo|ejemplos}: con tantas sobre "
        "tan pocos se ha visto que el modelo los memoriza y acaba peor que su base, aunque la "
        "pérdida baje. Lo habitual son dos o tres: --epochs 3.",
    ),
    "cli.high_rate": (
        "A learning rate of {rate:g} is more than ten times the usual one for {method} "
        "({usual:g}): the model is likely to forget what it knows.",
        "Una tasa de aprendizaje de {rate:g} es más de diez veces la habitual con {method} "
        "({usual:g}): es probable que el modelo olvide lo que sabe.",
    ),
    "cli.no_val_no_exam": (
        "Nothing is held out and there is no exam: this run will not be able to tell whether the "
        "model becomes better or worse. Give --exam FILE, or --val 0.1.",
        "No se reserva nada y no hay examen: este entrenamiento no podrá decir si el modelo mejora "
        "o empeora. Da --exam ARCHIVO o --val 0.1.",
    ),
    "cli.no_exam": (
        "There is no exam: the validation loss will say how well the answers are predicted, not "
        "whether they are right. Give --exam FILE with questions that have checkable answers.",
        "No hay examen: la pérdida de validación dirá lo bien que se predicen las respuestas, no "
        "si son correctas. Da --exam ARCHIVO con preguntas de respuesta comprobable.",
    ),
    "cli.no_val": (
        "Nothing is held out: early stopping can only watch the exam (--watch exam).",
        "No se reserva nada: la parada temprana solo puede vigilar el examen (--watch exam).",
    ),
    "cli.exam_result": (
        "Exam: base {before}/{total}, at the end {after}/{total} ({lost} lost, {gained} gained; "
        "p = {p}).",
        "Examen: la base {before}/{total}, al final {after}/{total} ({lost} perdidas, {gained} "
        "ganadas; p = {p}).",
    ),
    "cli.exam_better": (
        "The trained model is BETTER than its base.",
        "El modelo entrenado es MEJOR que su base.",
    ),
    "cli.exam_same": (
        "This exam shows NO DIFFERENCE between the trained model and its base.",
        "Este examen NO muestra DIFERENCIA entre el modelo entrenado y su base.",
    ),
    "cli.exam_worse": (
        "The trained model is WORSE than its base.",
        "El modelo entrenado es PEOR que su base.",
    ),
    "cli.exam_kept": (
        "best/ holds the model of update {step}: {right}/{total}.",
        "best/ guarda el modelo de la actualización {step}: {right}/{total}.",
    ),
    "cli.exam_kept_base": (
        "No evaluation was better than the base: best/ computes what the base does.",
        "Ninguna evaluación superó a la base: best/ calcula lo mismo que la base.",
    ),
    "cli.window_slid": (
        "The text grew longer than the model's context of {length} tokens: it went on with a "
        "sliding window and no longer sees its beginning.",
        "El texto superó el contexto del modelo ({length} tokens): siguió con una ventana "
        "deslizante y ya no ve su comienzo.",
    ),
    "cli.by_transformers": (
        "Yunque does not compute models of the kind {family} itself: transformers does, "
        "more slowly.",
        "Yunque no calcula por sí mismo los modelos de tipo {family}: de este se encarga "
        "transformers, más despacio.",
    ),
    "cli.evaluated": (
        "loss {loss} nats per token · perplexity {ppl} · {bpb} bits per byte · {tokens} tokens · "
        "{bytes} bytes",
        "pérdida {loss} nats por token · perplejidad {ppl} · {bpb} bits por byte · {tokens} "
        "tokens · {bytes} bytes",
    ),
    "cli.explain_title": (
        "What {model} thinks of each token",
        "Qué piensa {model} de cada token",
    ),
    "cli.certified": (
        "Written and read back by {reader}: the same model. Largest difference of two logits "
        "{logits}, KL {kl} nats. Folder: {folder}",
        "Escrito y releído por {reader}: es el mismo modelo. Mayor diferencia entre dos logits: "
        "{logits}; KL: {kl} nats. Carpeta: {folder}",
    ),
    "cli.certified_rounded": (
        "Written and read back by {reader}: the file holds exactly the model rounded to {dtype}, "
        "which is not quite the model it came from. From that, a logit differs by up to {logits}, "
        "KL is up to {kl} nats, the most likely token is the same at {share} of {positions} "
        "positions, and {same_texts} of {texts} greedy texts are the same. Folder: {folder}",
        "Escrito y releído por {reader}: el archivo contiene exactamente el modelo redondeado a "
        "{dtype}, que no es del todo el de origen. Respecto a este, un logit difiere hasta "
        "{logits}, la KL llega a {kl} nats, el token más probable coincide en el {share} de "
        "{positions} posiciones, y de {texts} textos voraces coinciden {same_texts}. Carpeta: "
        "{folder}",
    ),
    "cli.template_unusable": (
        "There is no usable chat template, and conversations are not certified: {reason}",
        "No hay plantilla de conversación que sirva, y de las conversaciones no se certifica nada "
        "(el motivo, en inglés): {reason}",
    ),
    "cli.merged_full": (
        "The adapter was trained on a quantised base and is merged onto the full one: a logit is "
        "up to {full} away from the model that was trained ({dequantised} with --merge-onto "
        "dequantised).",
        "El adaptador se entrenó sobre una base cuantizada y se ha fundido con la completa: un "
        "logit se aparta hasta {full} del modelo entrenado ({dequantised} con --merge-onto "
        "dequantised).",
    ),
    "cli.merged_dequantised": (
        "The adapter is merged onto the weights that it was trained on: a logit is up to "
        "{dequantised} away from the model that was trained ({full} with --merge-onto full).",
        "El adaptador se ha fundido con los pesos con los que se entrenó: un logit se aparta hasta "
        "{dequantised} del modelo entrenado ({full} con --merge-onto full).",
    ),
    "cli.watching": (
        "{path} is shown at {url} while it grows; Ctrl-C ends that.",
        "{path} se muestra en {url} mientras crece; Ctrl-C lo detiene.",
    ),
    "cli.page_written": ("Written: {path}", "Escrito: {path}"),
}
