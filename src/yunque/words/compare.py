"""Sentences of the comparison of runs. Numbers are written as in `words/report.py`."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "compare.title": ("Runs compared", "Comparación de ejecuciones"),
    "compare.summary": ("In short", "En pocas palabras"),
    "compare.recipe": ("What differed", "Qué cambiaba"),
    "compare.measures": ("Side by side", "Cara a cara"),
    "compare.claims": ("What it changed", "Qué efecto tuvo"),
    "compare.unknown": (
        "What these logs cannot tell",
        "Lo que estos registros no pueden decir",
    ),
    "compare.reference": (
        "Each run is held against the first: {name}.",
        "Cada ejecución se compara con la primera: {name}.",
    ),
    "compare.run": ("Run", "Ejecución"),
    "compare.setting": ("Setting", "Ajuste"),
    "compare.measure": ("Figure", "Cifra"),
    "compare.absent": ("not in this log", "no está en el registro"),
    "compare.curve_train": ("{name}, training", "{name}, entrenamiento"),
    "compare.curve_val": ("{name}, validation", "{name}, validación"),
    "compare.curve": ("{name}", "{name}"),
    # The recipe.
    "compare.same_recipe": (
        "The recipes are equal in every key.",
        "Las recetas son iguales en todas sus claves.",
    ),
    "compare.same_facts": (
        "Nothing that these logs say of their settings differs.",
        "Nada de lo que estos registros dicen de sus ajustes difiere.",
    ),
    "compare.from_recipe": (
        "From recipe.toml of each run; keys with equal values are left out.",
        "Según el recipe.toml de cada ejecución; se omiten las claves con valores iguales.",
    ),
    "compare.from_log": (
        "Not every run has a recipe: this is what the logs themselves say.",
        "No todas las ejecuciones tienen receta: esto es lo que dicen los propios registros.",
    ),
    # The figures.
    "compare.measure.verdict": ("Verdict", "Veredicto"),
    "compare.measure.steps": ("Steps", "Pasos"),
    "compare.measure.epochs": ("Epochs", "Épocas"),
    "compare.measure.seconds": ("Time", "Tiempo"),
    "compare.measure.tokens_per_second": (
        "Tokens per second (median)",
        "Tokens por segundo (mediana)",
    ),
    "compare.measure.memory_bytes": ("Most memory", "Memoria máxima"),
    "compare.measure.best_val_loss": ("Best validation loss", "Mejor pérdida de validación"),
    "compare.measure.best_val_step": ("… at step", "… en el paso"),
    "compare.measure.stop_step": (
        "Could have stopped at step",
        "Pudo parar en el paso",
    ),
    "compare.measure.last_train_loss": ("Last training loss", "Última pérdida de entrenamiento"),
    "compare.measure.general_loss": (
        "Last loss on the general text",
        "Última pérdida en el texto general",
    ),
    "compare.measure.exam": ("Exam, right answers", "Examen, aciertos"),
    "compare.measure.exam_step": ("… of the model of step", "… del modelo del paso"),
    "compare.value.text": ("{value}", "{value}"),
    "compare.value.integer": ("{value:n}", "{value:n}"),
    "compare.value.compact": ("{value:x}", "{value:x}"),
    "compare.value.loss": ("{value:loss}", "{value:loss}"),
    "compare.value.time": ("{value:time}", "{value:time}"),
    "compare.value.memory": ("{value:gb}", "{value:gb}"),
    "compare.value.score": (
        "{right:n}/{total:n} ({low:pct1} to {high:pct1})",
        "{right:n}/{total:n} ({low:pct1} a {high:pct1})",
    ),
    # What it changed: the best validation loss.
    "compare.val.lower": (
        "{run}: the best validation loss is lower than that of {against}, by {size:loss}: "
        "{value:loss} (step {step:n}) against {base:loss} (step {base_step:n}). The noise of both "
        "curves explains at most {limit:loss}.",
        "{run}: la mejor pérdida de validación es menor que la de {against}, en {size:loss}: "
        "{value:loss} (paso {step:n}) frente a {base:loss} (paso {base_step:n}). El ruido de las "
        "dos curvas explica como mucho {limit:loss}.",
    ),
    "compare.val.higher": (
        "{run}: the best validation loss is higher than that of {against}, by {size:loss}: "
        "{value:loss} (step {step:n}) against {base:loss} (step {base_step:n}). The noise of both "
        "curves explains at most {limit:loss}.",
        "{run}: la mejor pérdida de validación es mayor que la de {against}, en {size:loss}: "
        "{value:loss} (paso {step:n}) frente a {base:loss} (paso {base_step:n}). El ruido de las "
        "dos curvas explica como mucho {limit:loss}.",
    ),
    "compare.val.within_noise": (
        "{run}: the best validation loss does not differ from that of {against} beyond the noise: "
        "{value:loss} (step {step:n}) against {base:loss} (step {base_step:n}), {size:loss} "
        "apart, where noise explains up to {limit:loss}.",
        "{run}: la mejor pérdida de validación no difiere de la de {against} más de lo que explica "
        "el ruido: {value:loss} (paso {step:n}) frente a {base:loss} (paso {base_step:n}), con "
        "una diferencia de {size:loss}, y el ruido explica hasta {limit:loss}.",
    ),
    "compare.val.noise_unknown": (
        "{run}: best validation loss {value:loss} (step {step:n}), {against}: {base:loss} (step "
        "{base_step:n}). There are too few evaluations to know their noise, so the difference of "
        "{size:loss} is not judged.",
        "{run}: mejor pérdida de validación {value:loss} (paso {step:n}); {against}: {base:loss} "
        "(paso {base_step:n}). Hay muy pocas evaluaciones para conocer su ruido, así que la "
        "diferencia de {size:loss} no se juzga.",
    ),
    "compare.val.not_comparable": (
        "{run}: its validation losses cannot be set against those of {against}: the data, the "
        "tokenizer or the text that was held out is another one ({value:loss} and {base:loss} are "
        "answers to different questions).",
        "{run}: sus pérdidas de validación no se pueden comparar con las de {against}: los datos, "
        "el tokenizador o el texto apartado son otros ({value:loss} y {base:loss} responden a "
        "preguntas distintas).",
    ),
    "compare.val.same_text": (
        "This holds only if both were measured on the same text with the same tokenizer: the logs "
        "do not say.",
        "Esto solo vale si ambas se midieron con el mismo texto y el mismo tokenizador: los "
        "registros no lo dicen.",
    ),
    "compare.val.by_seed": (
        "(That limit is how far runs of one recipe lie apart by their seeds alone, 95% of the "
        "time.)",
        "(Ese límite es lo que distan entre sí, el 95\u00a0% de las veces, ejecuciones de una "
        "misma receta solo por la semilla.)",
    ),
    "compare.val.only_seed": (
        "Only the seed differs: such a difference is chance, whatever its size.",
        "Solo cambia la semilla: una diferencia así es azar, sea cual sea su tamaño.",
    ),
    # The training loss, where nothing was held out.
    "compare.train.lower": (
        "{run}: the training loss ended lower than that of {against}: {value:loss} against "
        "{base:loss} (medians of the last tenth; noise explains up to {limit:loss}). That says "
        "how well each knows its training text, not which is the better model.",
        "{run}: la pérdida de entrenamiento terminó por debajo de la de {against}: {value:loss} "
        "frente a {base:loss} (medianas de la última décima parte; el ruido explica hasta "
        "{limit:loss}). Eso dice lo bien que cada uno conoce su texto de entrenamiento, no cuál "
        "es el mejor modelo.",
    ),
    "compare.train.higher": (
        "{run}: the training loss ended higher than that of {against}: {value:loss} against "
        "{base:loss} (medians of the last tenth; noise explains up to {limit:loss}). That says "
        "how well each knows its training text, not which is the better model.",
        "{run}: la pérdida de entrenamiento terminó por encima de la de {against}: {value:loss} "
        "frente a {base:loss} (medianas de la última décima parte; el ruido explica hasta "
        "{limit:loss}). Eso dice lo bien que cada uno conoce su texto de entrenamiento, no cuál "
        "es el mejor modelo.",
    ),
    "compare.train.within_noise": (
        "{run}: the training loss ended where that of {against} did, but for noise: {value:loss} "
        "against {base:loss} (medians of the last tenth; noise explains up to {limit:loss}).",
        "{run}: la pérdida de entrenamiento terminó donde la de {against}, salvo ruido: "
        "{value:loss} frente a {base:loss} (medianas de la última décima parte; el ruido explica "
        "hasta {limit:loss}).",
    ),
    # The exam.
    "compare.exam.better": (
        "{run}: better at the exam than {against}: {right:n} of {total:n} right against "
        "{base_right:n} of {base_total:n}. Question by question: gained {gained:n}, lost {lost:n} "
        "(exact paired test, p = {p_value:p}; better or worse counts below {level:p}).",
        "{run}: mejor en el examen que {against}: acierta {right:n} de {total:n} frente a "
        "{base_right:n} de {base_total:n}. Pregunta a pregunta: ganados {gained:n}, perdidos "
        "{lost:n} (prueba exacta por pares, p = {p_value:p}; cuenta por debajo de {level:p}).",
    ),
    "compare.exam.worse": (
        "{run}: worse at the exam than {against}: {right:n} of {total:n} right against "
        "{base_right:n} of {base_total:n}. Question by question: gained {gained:n}, lost {lost:n} "
        "(exact paired test, p = {p_value:p}; better or worse counts below {level:p}).",
        "{run}: peor en el examen que {against}: acierta {right:n} de {total:n} frente a "
        "{base_right:n} de {base_total:n}. Pregunta a pregunta: ganados {gained:n}, perdidos "
        "{lost:n} (prueba exacta por pares, p = {p_value:p}; cuenta por debajo de {level:p}).",
    ),
    "compare.exam.within_noise": (
        "{run}: the exam shows no difference from {against}: {right:n} of {total:n} right against "
        "{base_right:n} of {base_total:n}. Question by question: gained {gained:n}, lost {lost:n} "
        "(exact paired test, p = {p_value:p}; better or worse counts below {level:p}).",
        "{run}: el examen no muestra diferencia con {against}: acierta {right:n} de {total:n} "
        "frente a {base_right:n} de {base_total:n}. Pregunta a pregunta: ganados {gained:n}, "
        "perdidos {lost:n} (prueba exacta por pares, p = {p_value:p}; cuenta por debajo de "
        "{level:p}).",
    ),
    "compare.exam.not_comparable": (
        "{run}: {right:n} of {total:n} right in its exam, {against}: {base_right:n} of "
        "{base_total:n}. Nothing shows that the same questions were asked, so this is not judged.",
        "{run}: acierta {right:n} de {total:n} en su examen; {against}: {base_right:n} de "
        "{base_total:n}. Nada muestra que las preguntas fueran las mismas, así que no se juzga.",
    ),
    # Forgetting, speed.
    "compare.general.lower": (
        "{run}: the loss on the general text ended lower than that of {against}, by {size:loss}: "
        "{value:loss} against {base:loss}: it forgot less.",
        "{run}: la pérdida en el texto general terminó por debajo de la de {against}, en "
        "{size:loss}: {value:loss} frente a {base:loss}: olvidó menos.",
    ),
    "compare.general.higher": (
        "{run}: the loss on the general text ended higher than that of {against}, by {size:loss}: "
        "{value:loss} against {base:loss}: it forgot more.",
        "{run}: la pérdida en el texto general terminó por encima de la de {against}, en "
        "{size:loss}: {value:loss} frente a {base:loss}: olvidó más.",
    ),
    "compare.speed.faster": (
        "{run}: faster than {against}: {value:n} tokens per second against {base:n} (medians; the "
        "middle halves of the rows do not overlap).",
        "{run}: más rápida que {against}: {value:n} tokens por segundo frente a {base:n} "
        "(medianas; las mitades centrales de las filas no se solapan).",
    ),
    "compare.speed.slower": (
        "{run}: slower than {against}: {value:n} tokens per second against {base:n} (medians; the "
        "middle halves of the rows do not overlap).",
        "{run}: más lenta que {against}: {value:n} tokens por segundo frente a {base:n} "
        "(medianas; las mitades centrales de las filas no se solapan).",
    ),
    "compare.speed.within_noise": (
        "{run}: as fast as {against}, but for noise: {value:n} tokens per second against {base:n} "
        "(medians; the middle halves of the rows overlap).",
        "{run}: tan rápida como {against}, salvo ruido: {value:n} tokens por segundo frente a "
        "{base:n} (medianas; las mitades centrales de las filas se solapan).",
    ),
    # The whole in a sentence or two.
    "compare.best.exam": (
        "Most right answers in the exam: {name}, {right:n} of {total:n}.",
        "Más aciertos en el examen: {name}, {right:n} de {total:n}.",
    ),
    "compare.best.exam_tied": (
        "The exam shows no difference from it for: {names}.",
        "El examen no muestra diferencia con ella para: {names}.",
    ),
    "compare.best.val": (
        "Lowest validation loss: {name}, {value:loss} (step {step:n}).",
        "Menor pérdida de validación: {name}, {value:loss} (paso {step:n}).",
    ),
    "compare.best.val_tied": (
        "Not above it beyond the noise: {names}.",
        "No por encima de ella más de lo que explica el ruido: {names}.",
    ),
    "compare.best.val_apart": (
        "Above it beyond the noise: {names}.",
        "Por encima de ella más de lo que explica el ruido: {names}.",
    ),
    "compare.best.none": (
        "Which of these runs made the better model cannot be told: they share no exam and no "
        "validation loss that can be set side by side.",
        "No se puede decir cuál de estas ejecuciones hizo el mejor modelo: no comparten ningún "
        "examen ni ninguna pérdida de validación que se puedan comparar.",
    ),
    # What the logs cannot tell.
    "compare.unknown.seed": (
        "Whether the differences would be the same with other random seeds: train each recipe "
        "with two or three seeds and compare all of them here.",
        "Si las diferencias serían las mismas con otras semillas aleatorias: entrena cada receta "
        "con dos o tres semillas y compáralas todas aquí.",
    ),
    "compare.unknown.cause": (
        "Which of the {count:n} settings that differ made the difference: change one at a time.",
        "Cuál de los {count:n} ajustes que cambian causó la diferencia: cambia uno cada vez.",
    ),
    "compare.unknown.exam": (
        "Which model is of more use for its task: give each run the same exam (--exam).",
        "Qué modelo sirve más para su tarea: pon a todas las ejecuciones el mismo examen (--exam).",
    ),
    "compare.unknown.settings": (
        "Whether something differed that the logs do not name: the data, the model, the code.",
        "Si cambiaba algo que los registros no nombran: los datos, el modelo, el código.",
    ),
    "compare.noise": (
        "Noise: four standard deviations of a single evaluation, each curve's own, measured "
        "robustly around its neighbours; for exams the exact paired test (McNemar), its level "
        "divided by the number of comparisons.",
        "Ruido: cuatro desviaciones típicas de una sola evaluación, las de cada curva, medidas de "
        "forma robusta en torno a sus vecinas; en los exámenes, la prueba exacta por pares "
        "(McNemar), con su nivel dividido por el número de comparaciones.",
    ),
}
