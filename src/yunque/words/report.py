"""Sentences of the report. Placeholders say how a number is written: `{step:n}`, `{best:loss}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yunque.words import LANGUAGES, say
from yunque.words.writing import duration, gigabytes, number, percent, perplexity, visible

WORDS: dict[str, tuple[str, str]] = {
    # The verdict: one sentence by id, one with the figures that decided.
    "report.verdict.worked": (
        "The training worked, as far as material that it did not train on can show.",
        "El entrenamiento funcionó, hasta donde lo puede mostrar material con el que no entrenó.",
    ),
    "report.verdict.overfitted": (
        "The model overfitted: it got worse on text that it did not train on, though not on its "
        "training data.",
        "El modelo se sobreajustó: empeoró con textos con los que no entrenó, aunque no con sus "
        "datos de entrenamiento.",
    ),
    "report.verdict.undertrained": (
        "The model learned, but the run ended while it was still improving.",
        "El modelo aprendió, pero el entrenamiento terminó cuando aún mejoraba.",
    ),
    "report.verdict.diverged": (
        "The training broke down before its end.",
        "El entrenamiento se rompió antes de su final.",
    ),
    "report.verdict.did_not_learn": (
        "The log shows no sign that the model learned what it was meant to.",
        "El registro no muestra señal de que el modelo aprendiera lo que debía.",
    ),
    "report.verdict.cannot_tell": (
        "This log cannot tell whether the training worked.",
        "Con este registro no se puede saber si el entrenamiento funcionó.",
    ),
    "report.verdict.val_why": (
        "The validation loss fell from {first:loss} to {best:loss} (step {step:n}).",
        "La pérdida de validación bajó de {first:loss} a {best:loss} (paso {step:n}).",
    ),
    "report.verdict.kept_why": (
        "The validation loss fell from {first:loss} to {best:loss} at step {step:n}; after that it "
        "rose to {last:loss} (step {last_step:n}), so use the model of step {step:n}, kept in "
        "{kept}.",
        "La pérdida de validación bajó de {first:loss} a {best:loss} en el paso {step:n}; después "
        "subió a {last:loss} (paso {last_step:n}), así que usa el modelo del paso {step:n}, "
        "guardado en {kept}.",
    ),
    "report.verdict.overfitted_why": (
        "The validation loss was lowest at step {step:n} ({best:loss}) and ended at {last:loss}, "
        "while the training loss went from {train_at_best:loss} to {train_at_last:loss}.",
        "La pérdida de validación tuvo su mínimo en el paso {step:n} ({best:loss}) y terminó en "
        "{last:loss}, mientras la de entrenamiento pasaba de {train_at_best:loss} a "
        "{train_at_last:loss}.",
    ),
    "report.verdict.diverged_why": (
        "The training loss rose from {low:loss} (step {low_step:n}) to {end:loss} and stayed up.",
        "La pérdida de entrenamiento subió de {low:loss} (paso {low_step:n}) a {end:loss} y ahí se "
        "quedó.",
    ),
    "report.verdict.no_validation_why": (
        "The training loss went from {first:loss} to {last:loss}, but nothing was held out: the "
        "log does not show whether the model does well on anything it has not seen.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss}, pero no se apartó nada "
        "para comprobarlo: el registro no muestra si el modelo acierta con algo que no haya visto.",
    ),
    "report.verdict.train_why": (
        "The training loss went from {first:loss} to {last:loss}.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss}.",
    ),
    "report.verdict.exam": (
        "Exam at step {last_step:n}: {last_right:n} of {last_total:n} right.",
        "Examen en el paso {last_step:n}: {last_right:n} aciertos de {last_total:n}.",
    ),
    # The findings: sentence and advice.
    "report.not_a_training_log": (
        "This file is not a training log of a format that Yunque reads.",
        "Este archivo no es un registro de entrenamiento en un formato que Yunque lea.",
    ),
    "report.not_a_training_log.advice": (
        "Give a run folder, its log.jsonl, or the trainer_state.json of a Hugging Face run.",
        "Indica la carpeta de una ejecución, su log.jsonl o el trainer_state.json de una ejecución "
        "de Hugging Face.",
    ),
    "report.too_short_to_judge": (
        "Too little to judge: training losses in the log: {loss_rows:n}; validation losses: "
        "{val_rows:n}.",
        "Demasiado poco para juzgar: pérdidas de entrenamiento en el registro: {loss_rows:n}; "
        "pérdidas de validación: {val_rows:n}.",
    ),
    "report.too_short_to_judge.advice": (
        "Log and evaluate more often, or train longer.",
        "Registra y evalúa más a menudo, o entrena más tiempo.",
    ),
    "report.non_finite.loss": (
        "A loss was NaN or infinite (first at step {step:n}). Rows with such values: {rows:n} of "
        "{total:n}.",
        "Hubo una pérdida NaN o infinita (la primera en el paso {step:n}). Filas con esos valores: "
        "{rows:n} de {total:n}.",
    ),
    "report.non_finite.loss.advice": (
        "Lower the learning rate, clip the gradients, use bf16 or fp32 instead of fp16, and look "
        "at the data around that step.",
        "Baja la tasa de aprendizaje, recorta los gradientes, usa bf16 o fp32 en vez de fp16 y "
        "mira los datos de alrededor de ese paso.",
    ),
    "report.non_finite.other": (
        "{field} was NaN or infinite (first at step {step:n}), while the losses stayed finite. "
        "Rows with such values: {rows:n} of {total:n}.",
        "{field} fue NaN o infinito (por primera vez en el paso {step:n}), aunque las pérdidas "
        "fueron finitas. Filas con esos valores: {rows:n} de {total:n}.",
    ),
    "report.non_finite.other.advice": (
        "A few such steps are normal with fp16 and loss scaling; many mean that the numbers "
        "overflow: use bf16 or fp32.",
        "Unos pocos pasos así son normales con fp16 y escalado de la pérdida; si son muchos, los "
        "números se desbordan: usa bf16 o fp32.",
    ),
    "report.diverged": (
        "The training loss rose for good after step {onset_step:n}: from {low:loss} (step "
        "{low_step:n}) to {end:loss} at the end (step {last_step:n}).",
        "La pérdida de entrenamiento subió sin remedio después del paso {onset_step:n}: de "
        "{low:loss} (paso {low_step:n}) a {end:loss} al final (paso {last_step:n}).",
    ),
    "report.diverged.advice": (
        "Train again with a lower learning rate (a third is a fair first try), a longer warm-up "
        "and clipped gradients.",
        "Entrena otra vez con una tasa de aprendizaje menor (un tercio es un buen primer intento), "
        "un calentamiento más largo y gradientes recortados.",
    ),
    "report.overfitting.kept": (
        "After step {step:n} the model overfitted: the validation loss rose from {best:loss} to "
        "{last:loss} (step {last_step:n}) while the training loss went from {train_at_best:loss} "
        "to {train_at_last:loss}. {kept} holds the model of step {step:n}, before that.",
        "Después del paso {step:n} el modelo se sobreajustó: la pérdida de validación subió de "
        "{best:loss} a {last:loss} (paso {last_step:n}) mientras la de entrenamiento pasaba de "
        "{train_at_best:loss} a {train_at_last:loss}. {kept} guarda el modelo del paso {step:n}, "
        "anterior a eso.",
    ),
    "report.overfitting.kept.advice": (
        "Use the model in {kept}, not the last one. For a lower validation loss: more text, a "
        "smaller model, or more dropout or weight decay.",
        "Usa el modelo de {kept}, no el último. Para bajar más la pérdida de validación: más "
        "texto, un modelo menor, o más dropout o decaimiento de pesos.",
    ),
    "report.overfitting.lost": (
        "After step {step:n} the model overfitted: the validation loss rose from {best:loss} to "
        "{last:loss} (step {last_step:n}) while the training loss went from {train_at_best:loss} "
        "to {train_at_last:loss}. The log does not show that the model of step {step:n} was kept.",
        "Después del paso {step:n} el modelo se sobreajustó: la pérdida de validación subió de "
        "{best:loss} a {last:loss} (paso {last_step:n}) mientras la de entrenamiento pasaba de "
        "{train_at_best:loss} a {train_at_last:loss}. El registro no muestra que se guardara el "
        "modelo del paso {step:n}.",
    ),
    "report.overfitting.lost.advice": (
        "Use a checkpoint near step {step:n} if there is one; else train again with early stopping "
        "and keep the best model.",
        "Usa un punto de control cercano al paso {step:n} si lo hay; si no, entrena otra vez con "
        "parada temprana y guarda el mejor modelo.",
    ),
    "report.best_step.alone": (
        "Best step: {step:n}, with the lowest validation loss, {val_loss:loss} (evaluations: "
        "{evals:n}, the last at step {last_step:n}).",
        "Mejor paso: {step:n}, con la menor pérdida de validación, {val_loss:loss} (evaluaciones: "
        "{evals:n}, la última en el paso {last_step:n}).",
    ),
    "report.best_step.alone.advice": (
        "Judge the run by this step, and use its checkpoint if it was kept.",
        "Juzga la ejecución por este paso y usa su punto de control si se guardó.",
    ),
    "report.best_step.kept": (
        "Best step: {step:n}, with the lowest validation loss, {val_loss:loss} (evaluations: "
        "{evals:n}, the last at step {last_step:n}). {kept} holds the model of step {step:n}.",
        "Mejor paso: {step:n}, con la menor pérdida de validación, {val_loss:loss} (evaluaciones: "
        "{evals:n}, la última en el paso {last_step:n}). {kept} guarda el modelo del paso "
        "{step:n}.",
    ),
    "report.best_step.kept.advice": ("Use the model in {kept}.", "Usa el modelo de {kept}."),
    "report.best_step.stopped_early": (
        "Best step: {step:n}, with the lowest validation loss, {val_loss:loss} (evaluations: "
        "{evals:n}). Early stopping ended the run at step {last_step:n}; {kept} holds the model of "
        "step {step:n}, not of the last step.",
        "Mejor paso: {step:n}, con la menor pérdida de validación, {val_loss:loss} (evaluaciones: "
        "{evals:n}). La parada temprana terminó la ejecución en el paso {last_step:n}; {kept} "
        "guarda el modelo del paso {step:n}, no el del último paso.",
    ),
    "report.best_step.stopped_early.advice": (
        "Use the model in {kept}; nothing is gained by training this recipe longer.",
        "Usa el modelo de {kept}; con esta receta no se gana nada entrenando más.",
    ),
    "report.could_have_stopped.validation": (
        "It could have stopped at step {step:n}: its validation loss, {loss:loss}, is as good as "
        "the best ({best:loss}, step {best_step:n}) within the noise. That is {saved:pct} of the "
        "steps less.",
        "Pudo parar en el paso {step:n}: su pérdida de validación, {loss:loss}, es tan buena como "
        "la mejor ({best:loss}, paso {best_step:n}) dentro del ruido. Es un {saved:pct} menos de "
        "pasos.",
    ),
    "report.could_have_stopped.advice": (
        "Switch early stopping on, or ask for fewer steps next time.",
        "Activa la parada temprana o pide menos pasos la próxima vez.",
    ),
    "report.could_have_stopped.best": (
        "It could have stopped at step {step:n}, the best one ({best:loss}): the {saved:pct} of "
        "the steps after it brought no lower loss.",
        "Pudo parar en el paso {step:n}, el mejor ({best:loss}): el {saved:pct} de los pasos, el "
        "que vino después, no trajo una pérdida menor.",
    ),
    "report.saved_time": (
        "Those steps took about {saved_seconds:time}.",
        "Esos pasos tardaron unos {saved_seconds:time}.",
    ),
    "report.could_have_stopped.training_loss": (
        "Judged by the training loss alone (running median), everything after step {step:n} "
        "({saved:pct} of the steps) bought almost nothing: {loss:loss} there, {best:loss} at its "
        "lowest (step {best_step:n}).",
        "A juzgar solo por la pérdida de entrenamiento (mediana móvil), todo lo posterior al paso "
        "{step:n} ({saved:pct} de los pasos) no aportó casi nada: {loss:loss} allí, {best:loss} en "
        "su mínimo (paso {best_step:n}).",
    ),
    "report.could_have_stopped.training_loss.advice": (
        "Stop at the latest there; with a validation set the right step is often earlier still.",
        "Para ahí como muy tarde; con un conjunto de validación, el paso justo suele ser aún "
        "anterior.",
    ),
    "report.still_improving": (
        "The validation loss was still falling: from {loss:loss} (step {step:n}) to {best:loss} "
        "(step {best_step:n}), {part:pct} of its whole fall.",
        "La pérdida de validación aún bajaba: de {loss:loss} (paso {step:n}) a {best:loss} (paso "
        "{best_step:n}), un {part:pct} de toda su bajada.",
    ),
    "report.still_improving.advice": (
        "Train longer. If the learning rate had already gone to its end value, plan a new run with "
        "more steps rather than going on with this one.",
        "Entrena más. Si la tasa de aprendizaje ya había llegado a su valor final, planea una "
        "ejecución nueva con más pasos en vez de continuar esta.",
    ),
    "report.no_validation": (
        "No validation loss in this log. The training losses ({loss_rows:n} rows) only show how "
        "well the model knows the text it was trained on.",
        "No hay pérdida de validación en este registro. Las pérdidas de entrenamiento "
        "({loss_rows:n} filas) solo muestran lo bien que el modelo conoce el texto con el que se "
        "entrenó.",
    ),
    "report.no_validation.advice": (
        "Hold a part of the data out (a tenth is usual), evaluate it while training, and stop when "
        "its loss no longer falls.",
        "Aparta una parte de los datos (lo habitual es una décima parte), evalúala durante el "
        "entrenamiento y para cuando su pérdida deje de bajar.",
    ),
    "report.memorisation_risk": (
        "The same data was seen {passes:x} times and the training loss fell from {first:loss} to "
        "{last:loss}, with nothing held out: take it for memorised until an exam on new questions "
        "shows otherwise.",
        "Los mismos datos se vieron {passes:x} veces y la pérdida de entrenamiento bajó de "
        "{first:loss} a {last:loss}, sin nada apartado: dalo por memorizado hasta que un examen "
        "con preguntas nuevas muestre lo contrario.",
    ),
    "report.memorisation_risk.advice": (
        "Fewer passes, more examples, and an exam of unseen questions before and after training.",
        "Menos pasadas, más ejemplos y un examen de preguntas nunca vistas antes y después de "
        "entrenar.",
    ),
    "report.memorisation_risk.examples": (
        "The same {examples:n} examples were seen {passes:x} times and the training loss fell from "
        "{first:loss} to {last:loss}, with nothing held out: take it for memorised until an exam "
        "on new questions shows otherwise.",
        "Los mismos {examples:n} ejemplos se vieron {passes:x} veces y la pérdida de entrenamiento "
        "bajó de {first:loss} a {last:loss}, sin nada apartado: dalo por memorizado hasta que un "
        "examen con preguntas nuevas muestre lo contrario.",
    ),
    "report.worse_than_base": (
        "The exam got worse: {first_right:n} of {first_total:n} right before the first update, "
        "{last_right:n} of {last_total:n} at step {last_step:n}.",
        "El examen empeoró: {first_right:n} aciertos de {first_total:n} antes de la primera "
        "actualización, {last_right:n} de {last_total:n} en el paso {last_step:n}.",
    ),
    "report.worse_than_base.advice": (
        "Use the base model; look at the training examples, lower the learning rate, train less.",
        "Usa el modelo base; revisa los ejemplos de entrenamiento, baja la tasa de aprendizaje y "
        "entrena menos.",
    ),
    "report.loss_spike": (
        "Spikes in the training loss, far above the noise around them: {rows:n}. The highest is "
        "{loss:loss} at step {step:n}, where {around:loss} was usual.",
        "Picos en la pérdida de entrenamiento, muy por encima del ruido de alrededor: {rows:n}. El "
        "mayor es {loss:loss} en el paso {step:n}, donde lo normal era {around:loss}.",
    ),
    "report.loss_spike.advice": (
        "Look at the data of those steps; if the loss does not come back down, lower the learning "
        "rate.",
        "Mira los datos de esos pasos; si la pérdida no vuelve a bajar, reduce la tasa de "
        "aprendizaje.",
    ),
    "report.throughput": (
        "Speed: {tokens_per_second:n} tokens per second (median).",
        "Velocidad: {tokens_per_second:n} tokens por segundo (mediana).",
    ),
    "report.throughput.advice": (
        "To go faster: a larger batch if memory allows, bf16, or a GPU.",
        "Para ir más deprisa: un lote mayor si la memoria lo permite, bf16 o una GPU.",
    ),
    "report.throughput.slower": (
        "The run slowed down: {early:n} tokens per second before, {late:n} in the last quarter "
        "(medians; over all: {tokens_per_second:n}).",
        "La ejecución se ralentizó: {early:n} tokens por segundo antes, {late:n} en el último "
        "cuarto (medianas; en total: {tokens_per_second:n}).",
    ),
    "report.throughput.slower.advice": (
        "Look for other programs on the machine, heat, or memory that spills to the disk.",
        "Busca otros programas en la máquina, exceso de calor o memoria que pasa al disco.",
    ),
    "report.memory": (
        "Most memory in a row of the log: {bytes:gb} (step {step:n}).",
        "Mayor memoria en una fila del registro: {bytes:gb} (paso {step:n}).",
    ),
    "report.memory.advice": (
        "Compare it with what the machine has before raising the batch or the context.",
        "Compárala con la que tiene la máquina antes de subir el lote o el contexto.",
    ),
    # What the log cannot tell, and what to log to know it.
    "report.unknown.generalisation": (
        "Whether the model does well on text that it has not seen: hold some out and log its loss.",
        "Si el modelo acierta con textos que no ha visto: aparta una parte y registra su pérdida.",
    ),
    "report.unknown.several_eval_sets": (
        "How the held-out sets with names of their own went: this report reads only eval_loss.",
        "Cómo fue con los conjuntos apartados que tienen nombre propio: este informe solo lee "
        "eval_loss.",
    ),
    "report.unknown.quality": (
        "Whether the model is of use for its task: a loss is not an exam. Ask it questions with "
        "known answers, before and after training.",
        "Si el modelo sirve para su tarea: una pérdida no es un examen. Hazle preguntas de "
        "respuesta conocida, antes y después de entrenar.",
    ),
    "report.unknown.end": (
        "Why the log ends here: it has no stop row, so the run is still going on or was killed.",
        "Por qué el registro acaba aquí: no tiene fila de fin, así que la ejecución sigue en "
        "marcha o fue interrumpida.",
    ),
    "report.unknown.unit": (
        "What the losses are made of: perplexity is right only if they are nats per token.",
        "De qué están hechas las pérdidas: la perplejidad solo vale si son nats por token.",
    ),
    "report.unknown.hours": (
        "How long the training took: the log has no times.",
        "Cuánto tardó el entrenamiento: el registro no tiene tiempos.",
    ),
    "report.unknown.tokens": (
        "How many tokens were seen, and so the cost of a better loss: the log does not count them.",
        "Cuántos tokens se vieron, y con ello el coste de una pérdida mejor: el registro no los "
        "cuenta.",
    ),
    "report.unknown.copied_text": (
        "Whether the samples are copied from the training text: this report does not compare them.",
        "Si las muestras están copiadas del texto de entrenamiento: este informe no las compara.",
    ),
    "report.unknown.seed": (
        "How another random seed would have come out: one run does not tell.",
        "Cómo habría salido con otra semilla aleatoria: una sola ejecución no lo dice.",
    ),
    # Titles and labels of the page, the picture and the terminal.
    "report.title": ("Training report", "Informe del entrenamiento"),
    "report.language": ("Language", "Idioma"),
    "report.verdict": ("Verdict", "Veredicto"),
    "report.id.worked": ("It worked", "Funcionó"),
    "report.id.overfitted": ("Overfitted", "Sobreajustado"),
    "report.id.undertrained": ("Undertrained", "Le faltó entrenamiento"),
    "report.id.diverged": ("Diverged", "Divergió"),
    "report.id.did_not_learn": ("Did not learn", "No aprendió"),
    "report.id.cannot_tell": ("Cannot tell", "No se puede saber"),
    "report.id.not_a_training_log": ("Not a training log", "No es un registro de entrenamiento"),
    "report.id.too_short_to_judge": ("Too short to judge", "Demasiado corto para juzgar"),
    "report.id.non_finite": ("Values that are no numbers", "Valores que no son números"),
    "report.id.overfitting": ("Overfitting", "Sobreajuste"),
    "report.id.best_step": ("Best step", "Mejor paso"),
    "report.id.could_have_stopped": ("Could have stopped earlier", "Pudo parar antes"),
    "report.id.still_improving": ("Still improving", "Aún mejoraba"),
    "report.id.no_validation": ("Nothing held out", "Nada apartado para validar"),
    "report.id.memorisation_risk": ("Risk of memorising", "Riesgo de memorización"),
    "report.id.worse_than_base": ("Worse than before", "Peor que antes"),
    "report.id.loss_spike": ("Spikes in the loss", "Picos en la pérdida"),
    "report.id.throughput": ("Speed", "Velocidad"),
    "report.id.memory": ("Memory", "Memoria"),
    "report.severity.info": ("note", "nota"),
    "report.severity.warning": ("warning", "aviso"),
    "report.severity.problem": ("problem", "problema"),
    "report.findings": ("Findings", "Hallazgos"),
    "report.evidence": ("Evidence", "Pruebas"),
    "report.evidence.row": ("Row of the log", "Fila del registro"),
    "report.evidence.field": ("Field", "Campo"),
    "report.evidence.value": ("Value", "Valor"),
    "report.advice": ("What to do", "Qué hacer"),
    "report.unknown": ("What this log cannot tell", "Lo que este registro no puede decir"),
    "report.curves": ("The curves", "Las curvas"),
    "report.loss": ("Loss", "Pérdida"),
    "report.loss_unit": ("loss (nats per token)", "pérdida (nats por token)"),
    "report.loss_plain": ("loss", "pérdida"),
    "report.train_rows": ("training, as logged", "entrenamiento, según el registro"),
    "report.train_eval": ("training, at evaluations", "entrenamiento, en las evaluaciones"),
    "report.validation": ("validation", "validación"),
    "report.perplexity": ("Perplexity", "Perplejidad"),
    "report.learning_rate": ("Learning rate", "Tasa de aprendizaje"),
    "report.grad_norm": ("Gradient norm", "Norma del gradiente"),
    "report.tokens_per_second": ("Tokens per second", "Tokens por segundo"),
    "report.best": ("best", "mejor"),
    "report.stopped": ("stopped early", "parada temprana"),
    "report.could_stop": ("could stop", "pudo parar"),
    "report.log_scale": ("log scale", "escala log."),
    "report.axis": ("Horizontal axis", "Eje horizontal"),
    "report.steps": ("steps", "pasos"),
    "report.epochs": ("epochs", "épocas"),
    "report.tokens": ("tokens seen", "tokens vistos"),
    "report.hours": ("hours", "horas"),
    "report.thinned": (
        "The curves show at most {shown:n} of {total:n} rows each; highs and lows are kept.",
        "Cada curva muestra como mucho {shown:n} de {total:n} filas; se conservan los máximos y "
        "los mínimos.",
    ),
    "report.noscript": (
        "The interactive curves need JavaScript; report.png holds the same picture.",
        "Las curvas interactivas necesitan JavaScript; report.png contiene la misma imagen.",
    ),
    "report.no_curves": ("No curves in this log.", "No hay curvas en este registro."),
    "report.stages": ("Stages", "Etapas"),
    "report.stage": ("Stage", "Etapa"),
    "report.stage.fast": ("fast", "rápida"),
    "report.stage.refinement": ("refinement", "refinamiento"),
    "report.stage.plateau": ("plateau", "meseta"),
    "report.stage.overfitting": ("overfitting", "sobreajuste"),
    "report.stage.divergence": ("divergence", "divergencia"),
    "report.stage.steps": ("Steps", "Pasos"),
    "report.stage.range": ("{from_step:n} to {to_step:n}", "{from_step:n} a {to_step:n}"),
    "report.stage.improvement": (
        "Share of the improvement (minus: lost again)",
        "Parte de la mejora (negativa: perdida)",
    ),
    "report.stage.time": ("Share of the time", "Parte del tiempo"),
    "report.samples": ("Samples over time", "Muestras a lo largo del tiempo"),
    "report.samples.shown": (
        "Shown: {shown:n} of {total:n}.",
        "Se muestran {shown:n} de {total:n}.",
    ),
    "report.at_step": ("step {step:n}", "paso {step:n}"),
    "report.sample": ("Step {step:n}", "Paso {step:n}"),
    "report.sample.empty": ("(new document)", "(documento nuevo)"),
    "report.exam": ("Exam", "Examen"),
    "report.exam.kind": ("Kind of question", "Tipo de pregunta"),
    "report.exam.all": ("all", "todas"),
    "report.exam.score": ("{right:n}/{total:n} ({part:pct})", "{right:n}/{total:n} ({part:pct})"),
    "report.facts": ("Figures of the run", "Cifras de la ejecución"),
    "report.fact": ("Figure", "Cifra"),
    "report.value": ("Value", "Valor"),
    "report.not_known": ("not in this log", "no está en el registro"),
    "report.fact.steps": ("Steps (updates)", "Pasos (actualizaciones)"),
    "report.fact.epochs": ("Epochs (passes over the data)", "Épocas (pasadas por los datos)"),
    "report.fact.examples": ("Training examples", "Ejemplos de entrenamiento"),
    "report.fact.hours": ("Hours", "Horas"),
    "report.fact.first_train_loss": (
        "First training loss logged",
        "Primera pérdida de entrenamiento registrada",
    ),
    "report.fact.last_train_loss": ("Last training loss", "Última pérdida de entrenamiento"),
    "report.fact.lowest_train_loss": ("Lowest training loss", "Menor pérdida de entrenamiento"),
    "report.fact.lowest_train_step": ("… at step", "… en el paso"),
    "report.fact.mean_train_loss": (
        "Mean training loss over the run (not the last)",
        "Pérdida media de entrenamiento (no la última)",
    ),
    "report.fact.best_val_loss": ("Best validation loss", "Mejor pérdida de validación"),
    "report.fact.best_val_step": ("… at step", "… en el paso"),
    "report.fact.last_val_loss": ("Last validation loss", "Última pérdida de validación"),
    "report.fact.loss_rows": ("Rows with a training loss", "Filas con pérdida de entrenamiento"),
    "report.fact.eval_rows": ("Evaluations", "Evaluaciones"),
    "report.fact.non_finite_rows": ("Rows with NaN or infinity", "Filas con NaN o infinito"),
    "report.integer": ("{value:n}", "{value:n}"),
    "report.compact": ("{value:x}", "{value:x}"),
    "report.loss_value": ("{value:loss}", "{value:loss}"),
    "report.share": ("{value:pct}", "{value:pct}"),
    "report.settings": ("Settings at the start", "Datos del comienzo"),
    "report.recipe": ("Recipe", "Receta"),
    "report.source": ("Source", "Fuente"),
    "report.source.text": (
        "{path} · format: {format} · rows: {rows:n} · SHA-256: {sha256}",
        "{path} · formato: {format} · filas: {rows:n} · SHA-256: {sha256}",
    ),
}


@dataclass(frozen=True)
class Written:
    """A value that writes itself in one language: the format says what kind of figure it is."""

    value: Any
    lang: str

    def __format__(self, kind: str) -> str:
        v, lang = self.value, self.lang
        if kind == "":
            return visible(str(v))
        if v is None:
            return "-"
        if kind == "loss":  # 2.696, 0.0570, 0.00012: three figures or more at any size
            return number(v, lang, 3 if abs(v) >= 1 else 4 if abs(v) >= 0.01 or not v else 6)
        if kind == "x":  # 250, 37.5, 0.3
            return number(v, lang, 0 if float(v).is_integer() or abs(v) >= 1000 else 2)
        if kind == "time":
            return duration(v)
        if kind == "gb":
            return gigabytes(v, lang)
        if kind == "ppl":
            return perplexity(v, lang)
        if kind == "pct":
            return percent(v, lang)
        return number(v, lang)


def tell(key: str, **values: Any) -> dict[str, str]:
    """The sentence in every language, each number written as that language writes it."""
    return {
        lang: say(key, lang, **{name: Written(v, lang) for name, v in values.items()})
        for lang in LANGUAGES
    }
