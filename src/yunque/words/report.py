"""Sentences of the report. Placeholders say how a number is written: `{step:n}`, `{best:loss}`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from yunque.words import LANGUAGES, say
from yunque.words.writing import (
    duration,
    gigabytes,
    number,
    percent,
    perplexity,
    scientific,
    visible,
)

WORDS: dict[str, tuple[str, str]] = {
    # The verdict: one sentence by id, one with the figures that decided.
    "report.verdict.worked": (
        "The training worked, as far as material that it did not train on can show.",
        "El entrenamiento funcionó, hasta donde lo puede mostrar material con el que no entrenó.",
    ),
    "report.verdict.overfitted": (
        "The model overfitted: it got worse on material that it did not train on, though not on "
        "its training data.",
        "El modelo se sobreajustó: empeoró con material con el que no entrenó, aunque no con "
        "sus datos de entrenamiento.",
    ),
    "report.verdict.overfitted_alone": (
        "The model got worse on text that it did not train on. The usual cause is overfitting; the "
        "log has no training loss to show it.",
        "El modelo empeoró con textos con los que no entrenó. La causa habitual es el sobreajuste; "
        "el registro no tiene pérdida de entrenamiento que lo muestre.",
    ),
    "report.verdict.undertrained": (
        "The model learned, but the run ended while it was still improving.",
        "El modelo aprendió, pero el entrenamiento terminó cuando aún mejoraba.",
    ),
    "report.verdict.undertrained_below_1": (
        "The model learned, but less than a count of how often each token occurs would have told "
        "it (validation loss {count:loss}).",
        "El modelo aprendió, pero menos de lo que da contar cada cuánto aparece cada token "
        "(pérdida de validación {count:loss}).",
    ),
    "report.verdict.undertrained_below_2": (
        "The model learned, but less than a count of which token follows which would have told it "
        "(validation loss {count:loss}).",
        "El modelo aprendió, pero menos de lo que da contar qué token sigue a cuál (pérdida de "
        "validación {count:loss}).",
    ),
    "report.verdict.undertrained_warmup": (
        "The model learned, but the log ends in the warm-up, before the learning rate had reached "
        "its peak.",
        "El modelo aprendió, pero el registro acaba en el calentamiento, antes de que la tasa de "
        "aprendizaje llegara a su máximo.",
    ),
    "report.verdict.other_set": (
        "Not so on {set}: there the validation loss rose from {best:loss} (step {step:n}) to "
        "{last:loss} (step {last_step:n}).",
        "No así con {set}: ahí la pérdida de validación subió de {best:loss} (paso {step:n}) a "
        "{last:loss} (paso {last_step:n}).",
    ),
    "report.verdict.last_finite": (
        "The last training loss that is a number is {loss:loss} (step {step:n}).",
        "La última pérdida de entrenamiento que es un número es {loss:loss} (paso {step:n}).",
    ),
    "report.verdict.few": (
        "Evaluations: only {evals:n}. From so few, noise cannot be told from a small fall.",
        "Evaluaciones: solo {evals:n}. Con tan pocas no se distingue el ruido de una bajada "
        "pequeña.",
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
    "report.verdict.overfitted_alone_why": (
        "The validation loss was lowest at step {step:n} ({best:loss}) and ended at {last:loss} "
        "(step {last_step:n}).",
        "La pérdida de validación tuvo su mínimo en el paso {step:n} ({best:loss}) y terminó en "
        "{last:loss} (paso {last_step:n}).",
    ),
    "report.verdict.diverged_why": (
        "The training loss rose from {low:loss} (step {low_step:n}) to {end:loss} and stayed up.",
        "La pérdida de entrenamiento subió de {low:loss} (paso {low_step:n}) a {end:loss} y ahí se "
        "quedó.",
    ),
    "report.verdict.not_finite_why": (
        "A loss was NaN or infinite first at step {step:n}, and at the end of the log it still is.",
        "Una pérdida fue NaN o infinita por primera vez en el paso {step:n}, y al final del "
        "registro lo sigue siendo.",
    ),
    "report.verdict.rose_why": (
        "The validation loss fell from {first:loss} to {best:loss} at step {step:n}, but ended at "
        "{last:loss} (step {last_step:n}): what holds is true of the model of step {step:n}, if it "
        "was kept.",
        "La pérdida de validación bajó de {first:loss} a {best:loss} en el paso {step:n}, pero "
        "terminó en {last:loss} (paso {last_step:n}): lo dicho vale para el modelo del paso "
        "{step:n}, si se guardó.",
    ),
    "report.verdict.fell_back_why": (
        "The validation loss fell from {first:loss} to {best:loss} at step {step:n}, but ended at "
        "{last:loss} (step {last_step:n}): the last model has lost what that of step {step:n} had, "
        "and the log does not show that this one was kept.",
        "La pérdida de validación bajó de {first:loss} a {best:loss} en el paso {step:n}, pero "
        "terminó en {last:loss} (paso {last_step:n}): el último modelo ha perdido lo que tenía el "
        "del paso {step:n}, y el registro no muestra que este se guardara.",
    ),
    "report.verdict.unsure_why": (
        "The validation loss went from {first:loss} to {last:loss} (step {last_step:n}), lowest at "
        "{best:loss} (step {step:n}): that is not below the first by more than the noise of its "
        "points explains.",
        "La pérdida de validación pasó de {first:loss} a {last:loss} (paso {last_step:n}), con el "
        "mínimo en {best:loss} (paso {step:n}): no queda por debajo de la primera más de lo que "
        "explica el ruido de sus puntos.",
    ),
    "report.verdict.no_validation_why": (
        "The training loss went from {first:loss} to {last:loss}, but the log has no validation "
        "loss: it does not show whether the model does well on anything it has not seen.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss}, pero el registro no "
        "tiene pérdida de validación: no muestra si el modelo acierta con algo que no haya "
        "visto.",
    ),
    "report.verdict.measured_why": (
        "The training loss went from {first:loss} to {last:loss}. What was held out was "
        "measured too: {metric} was best at step {step:n} ({value:loss}) and ended at "
        "{last_value:loss} (step {last_step:n}). But no validation loss stands in the log.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss}. Lo apartado también se "
        "midió: {metric} tuvo su mejor valor en el paso {step:n} ({value:loss}) y terminó en "
        "{last_value:loss} (paso {last_step:n}). Pero en el registro no hay pérdida de "
        "validación.",
    ),
    "report.verdict.memorised_why": (
        "The training loss went from {first:loss} to {last:loss} in {passes:x} passes over the "
        "same data, with no validation loss to set against it: take it for learned by heart "
        "until an exam of new questions shows otherwise.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss} en {passes:x} pasadas "
        "por los mismos datos, sin pérdida de validación con que contrastarla: da por hecho que "
        "se los sabe de memoria hasta que un examen de preguntas nuevas muestre lo contrario.",
    ),
    "report.verdict.train_why": (
        "The training loss went from {first:loss} to {last:loss}.",
        "La pérdida de entrenamiento pasó de {first:loss} a {last:loss}.",
    ),
    "report.verdict.exam": (
        "Exam at step {last_step:n}: {last_right:n} of {last_total:n} right.",
        "Aciertos en el examen del paso {last_step:n}: {last_right:n} de {last_total:n}.",
    ),
    "report.verdict.exam_better": (
        "Exam: better than the base. Right before training: {first_right:n} of {first_total:n}; at "
        "step {last_step:n}: {last_right:n} (gained {gained:n}, lost {lost:n}; exact paired test, "
        "p = {p_value:p}).",
        "Examen: mejor que el modelo base. Aciertos antes de entrenar: {first_right:n} de "
        "{first_total:n}; en el paso {last_step:n}: {last_right:n} (ganados {gained:n}, perdidos "
        "{lost:n}; prueba exacta por pares, p = {p_value:p}).",
    ),
    "report.verdict.exam_no_different": (
        "Exam: no different from the base, as far as this exam can show. Right before training: "
        "{first_right:n} of {first_total:n}; at step {last_step:n}: {last_right:n} (gained "
        "{gained:n}, lost {lost:n}; exact paired test, p = {p_value:p}).",
        "Examen: sin diferencia con el modelo base, hasta donde este examen puede mostrarla. "
        "Aciertos antes de entrenar: {first_right:n} de {first_total:n}; en el paso {last_step:n}: "
        "{last_right:n} (ganados {gained:n}, perdidos {lost:n}; prueba exacta por pares, p = "
        "{p_value:p}).",
    ),
    "report.verdict.exam_worse": (
        "Exam: worse than the base. Right before training: {first_right:n} of {first_total:n}; at "
        "step {last_step:n}: {last_right:n} (gained {gained:n}, lost {lost:n}; exact paired test, "
        "p = {p_value:p}).",
        "Examen: peor que el modelo base. Aciertos antes de entrenar: {first_right:n} de "
        "{first_total:n}; en el paso {last_step:n}: {last_right:n} (ganados {gained:n}, perdidos "
        "{lost:n}; prueba exacta por pares, p = {p_value:p}).",
    ),
    # The findings: sentence and advice.
    "report.not_a_training_log": (
        "This file is not a training log of a format that Yunque reads.",
        "Este archivo no es un registro de entrenamiento en un formato que Yunque lea.",
    ),
    "report.not_a_training_log.line": (
        "This file is not a training log of a format that Yunque reads. It begins with: {line}",
        "Este archivo no es un registro de entrenamiento en un formato que Yunque lea. Empieza "
        "así: {line}",
    ),
    "report.not_a_training_log.columns": (
        "This file is a table, but none of its columns has the name of a loss. They are: "
        "{columns}.",
        "Este archivo es una tabla, pero ninguna de sus columnas tiene nombre de pérdida. Son: "
        "{columns}.",
    ),
    "report.not_a_training_log.columns.advice": (
        "If one of them is a loss, say which, and which one holds the step: --columns "
        "step=COLUMN,train_loss=COLUMN,val_loss=COLUMN.",
        "Si una de ellas es una pérdida, di cuál, y cuál lleva el paso: --columns "
        "step=COLUMNA,train_loss=COLUMNA,val_loss=COLUMNA.",
    ),
    "report.not_a_training_log.shares": (
        "This file is a table of measures like {shares}, with no loss (columns: {columns}). A "
        "report is made from losses: how many answers are right does not tell it.",
        "Este archivo es una tabla de medidas como {shares}, sin ninguna pérdida (columnas: "
        "{columns}). El informe se hace con pérdidas: no le basta con cuántas respuestas son "
        "correctas.",
    ),
    "report.not_a_training_log.shares.advice": (
        "Log the loss too, of training and of what was held out. If a column holds it under "
        "another name: --columns step=COLUMN,train_loss=COLUMN,val_loss=COLUMN.",
        "Registra también la pérdida, la de entrenamiento y la de lo apartado. Si una columna la "
        "tiene con otro nombre: --columns step=COLUMNA,train_loss=COLUMNA,val_loss=COLUMNA.",
    ),
    "report.not_a_training_log.steps": (
        "This file is a table with a column {loss}, but with none that tells the step or the epoch "
        "of a row (columns: {columns}).",
        "Este archivo es una tabla con una columna {loss}, pero sin ninguna que diga el paso o la "
        "época de cada fila (columnas: {columns}).",
    ),
    "report.not_a_training_log.steps.advice": (
        "Say which column holds the step: --columns step=COLUMN. If the rows stand in the order of "
        "the training, naming the loss is enough: --columns train_loss=COLUMN.",
        "Di qué columna lleva el paso: --columns step=COLUMNA. Si las filas están en el orden del "
        "entrenamiento, basta con nombrar la pérdida: --columns train_loss=COLUMNA.",
    ),
    "report.not_a_training_log.values": (
        "This file is a table with a column {loss}, but its rows do not hold numbers at different "
        "steps (columns: {columns}).",
        "Este archivo es una tabla con una columna {loss}, pero sus filas no tienen números en "
        "pasos distintos (columnas: {columns}).",
    ),
    "report.not_a_training_log.values.advice": (
        "If other columns hold the loss and the step, say which: --columns "
        "step=COLUMN,train_loss=COLUMN,val_loss=COLUMN.",
        "Si la pérdida y el paso están en otras columnas, di en cuáles: --columns "
        "step=COLUMNA,train_loss=COLUMNA,val_loss=COLUMNA.",
    ),
    "report.not_a_training_log.advice": (
        "Give a run folder, or a log with steps and losses: trainer_state.json, TensorBoard "
        "events, a table (CSV, JSON lines) or a text log.",
        "Indica la carpeta de una ejecución o un registro con pasos y pérdidas: "
        "trainer_state.json, eventos de TensorBoard, una tabla (CSV, JSON por líneas) o un "
        "registro de texto.",
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
        "From about step {onset_step:n} on the model overfitted: the validation loss rose from "
        "{best:loss} (step {step:n}) to {last:loss} (step {last_step:n}) while the training loss "
        "went from {train_at_best:loss} to {train_at_last:loss}. {kept} holds the model of step "
        "{step:n}, before that.",
        "Más o menos desde el paso {onset_step:n} el modelo se sobreajustó: la pérdida de "
        "validación subió de {best:loss} (paso {step:n}) a {last:loss} (paso {last_step:n}) "
        "mientras la de entrenamiento pasaba de {train_at_best:loss} a {train_at_last:loss}. "
        "{kept} guarda el modelo del paso {step:n}, anterior a eso.",
    ),
    "report.overfitting.kept.advice": (
        "Use the model in {kept}, not the last one. For a lower validation loss: more text, a "
        "smaller model, or more dropout or weight decay.",
        "Usa el modelo de {kept}, no el último. Para bajar más la pérdida de validación: más "
        "texto, un modelo menor, o más dropout o decaimiento de pesos.",
    ),
    "report.overfitting.lost": (
        "From about step {onset_step:n} on the model overfitted: the validation loss rose from "
        "{best:loss} (step {step:n}) to {last:loss} (step {last_step:n}) while the training loss "
        "went from {train_at_best:loss} to {train_at_last:loss}. The log does not show that the "
        "model of step {step:n} was kept.",
        "Más o menos desde el paso {onset_step:n} el modelo se sobreajustó: la pérdida de "
        "validación subió de {best:loss} (paso {step:n}) a {last:loss} (paso {last_step:n}) "
        "mientras la de entrenamiento pasaba de {train_at_best:loss} a {train_at_last:loss}. El "
        "registro no muestra que se guardara el modelo del paso {step:n}.",
    ),
    "report.overfitting.lost.advice": (
        "Use a checkpoint near step {step:n} if there is one; else train again with early stopping "
        "and keep the best model.",
        "Usa un punto de control cercano al paso {step:n} si lo hay; si no, entrena otra vez con "
        "parada temprana y guarda el mejor modelo.",
    ),
    "report.overfitting.alone": (
        "From about step {onset_step:n} on the validation loss rose: from {best:loss} (step "
        "{step:n}) to {last:loss} (step {last_step:n}). With no training loss in the log, that is "
        "most likely overfitting. The log does not show that the model of step {step:n} was kept.",
        "Más o menos desde el paso {onset_step:n} la pérdida de validación subió: de {best:loss} "
        "(paso {step:n}) a {last:loss} (paso {last_step:n}). Sin pérdida de entrenamiento en el "
        "registro, lo más probable es que sea sobreajuste. El registro no muestra que se guardara "
        "el modelo del paso {step:n}.",
    ),
    "report.overfitting.alone.advice": (
        "Use a checkpoint near step {step:n} if there is one; else train again with early stopping "
        "and keep the best model. Log the training loss too: where it rises as well, the learning "
        "rate is to blame.",
        "Usa un punto de control cercano al paso {step:n} si lo hay; si no, entrena otra vez con "
        "parada temprana y guarda el mejor modelo. Registra también la pérdida de entrenamiento: "
        "si sube con ella, la culpa es de la tasa de aprendizaje.",
    ),
    "report.ended_worse.validation": (
        "The run ended worse than it had been: the validation loss was {best:loss} at step "
        "{step:n} and {last:loss} at the end (step {last_step:n}). The log does not show that the "
        "model of step {step:n} was kept.",
        "La ejecución terminó peor de lo que había llegado a estar: la pérdida de validación era "
        "{best:loss} en el paso {step:n} y {last:loss} al final (paso {last_step:n}). El registro "
        "no muestra que se guardara el modelo del paso {step:n}.",
    ),
    "report.ended_worse.kept_validation": (
        "The run ended worse than it had been: the validation loss was {best:loss} at step "
        "{step:n} and {last:loss} at the end (step {last_step:n}). {kept} holds the model of step "
        "{step:n}, before that.",
        "La ejecución terminó peor de lo que había llegado a estar: la pérdida de validación era "
        "{best:loss} en el paso {step:n} y {last:loss} al final (paso {last_step:n}). {kept} "
        "guarda el modelo del paso {step:n}, anterior a eso.",
    ),
    "report.ended_worse.last": (
        "The last validation loss lies above the others by more than their noise: {last:loss} at "
        "step {last_step:n}, where {best:loss} was the lowest (step {step:n}). The log ends there: "
        "it cannot show whether that was one bad evaluation or the start of a rise.",
        "La última pérdida de validación queda por encima de las demás, más de lo que explica su "
        "ruido: {last:loss} en el paso {last_step:n}, cuando la menor era {best:loss} (paso "
        "{step:n}). El registro acaba ahí: no puede mostrar si fue una mala evaluación suelta o el "
        "comienzo de una subida.",
    ),
    "report.ended_worse.kept_last": (
        "The last validation loss lies above the others by more than their noise: {last:loss} at "
        "step {last_step:n}, where {best:loss} was the lowest (step {step:n}). {kept} holds the "
        "model of step {step:n}, before that.",
        "La última pérdida de validación queda por encima de las demás, más de lo que explica su "
        "ruido: {last:loss} en el paso {last_step:n}, cuando la menor era {best:loss} (paso "
        "{step:n}). {kept} guarda el modelo del paso {step:n}, anterior a eso.",
    ),
    "report.ended_worse.training": (
        "The training loss ended above where it had been: {best:loss} at step {step:n} (running "
        "median), {last:loss} at the end (median of the last {rows:n} rows, up to step "
        "{last_step:n}).",
        "La pérdida de entrenamiento terminó por encima de donde había llegado: {best:loss} en el "
        "paso {step:n} (mediana móvil) y {last:loss} al final (mediana de las últimas {rows:n} "
        "filas, hasta el paso {last_step:n}).",
    ),
    "report.ended_worse.part": (
        "That gives back {part:pct} of its whole fall, {won:loss}.",
        "Así se pierde el {part:pct} de toda su bajada, {won:loss}.",
    ),
    "report.ended_worse.advice": (
        "Do not use the last model: take a checkpoint near step {step:n} if there is one, and look "
        "at what changed after it (learning rate, data, a resume).",
        "No uses el último modelo: toma un punto de control cercano al paso {step:n} si lo hay, y "
        "mira qué cambió después (tasa de aprendizaje, datos, una reanudación).",
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
    "report.best_step.by_exam": (
        "best/ holds another model, that of step {kept_step:n}: it was chosen by the exam.",
        "best/ guarda otro modelo, el del paso {kept_step:n}: se eligió por el examen.",
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
        "the best ({best:loss}, step {best_step:n}) but for noise. That is {saved:pct} of the "
        "steps less.",
        "Pudo parar en el paso {step:n}: su pérdida de validación, {loss:loss}, es tan buena como "
        "la mejor ({best:loss}, paso {best_step:n}) salvo ruido. Es un {saved:pct} menos de "
        "pasos.",
    ),
    "report.could_have_stopped.advice": (
        "Switch early stopping on, or ask for fewer steps next time.",
        "Activa la parada temprana o pide menos pasos la próxima vez.",
    ),
    "report.could_have_stopped.best": (
        "It could have stopped at step {step:n}, where the loss was lowest ({best:loss}): what "
        "came after it ({saved:pct} of the steps) brought no lower one.",
        "Pudo parar en el paso {step:n}, donde la pérdida fue mínima ({best:loss}): lo que vino "
        "después (el {saved:pct} de los pasos) no trajo una menor.",
    ),
    "report.saved_time": (
        "Those steps took about {saved_seconds:time}.",
        "Esos pasos tardaron unos {saved_seconds:time}.",
    ),
    "report.saved_passes": (
        "Passes over the data in those steps: {saved_epochs:x}.",
        "Pasadas por los datos en esos pasos: {saved_epochs:x}.",
    ),
    "report.saved_timepasses": (
        "Passes over the data in those steps: {saved_epochs:x}; time: about {saved_seconds:time}.",
        "Pasadas por los datos en esos pasos: {saved_epochs:x}; tiempo: unos {saved_seconds:time}.",
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
    "report.still_improving.validation": (
        "The validation loss was still falling: from {loss:loss} (step {step:n}) to {best:loss} "
        "(step {best_step:n}), {part:pct} of its whole fall.",
        "La pérdida de validación aún bajaba: de {loss:loss} (paso {step:n}) a {best:loss} (paso "
        "{best_step:n}), un {part:pct} de toda su bajada.",
    ),
    "report.still_improving.training": (
        "The training loss was still falling: on average {loss:loss} in the third quarter (up to "
        "step {step:n}) and {best:loss} in the last one (up to step {best_step:n}), {part:pct} of "
        "its whole fall.",
        "La pérdida de entrenamiento aún bajaba: de media, {loss:loss} en el tercer cuarto (hasta "
        "el paso {step:n}) y {best:loss} en el último (hasta el paso {best_step:n}), un {part:pct} "
        "de toda su bajada.",
    ),
    "report.still_improving.ahead": (
        "If it goes on falling as it has, at a learning rate like that so far, step {ahead_step:n} "
        "(half as many steps again) brings about {ahead_middle:loss}: with nine chances in ten "
        "between {ahead_low:loss} and {ahead_high:loss}, fewer where it follows no simple law.",
        "Si sigue bajando como hasta ahora, con una tasa de aprendizaje parecida, en el paso "
        "{ahead_step:n} (la mitad más de pasos) estará en {ahead_middle:loss} más o menos: entre "
        "{ahead_low:loss} y {ahead_high:loss} con nueve probabilidades de diez, menos si no sigue "
        "ninguna ley sencilla.",
    ),
    "report.still_improving.decayed": (
        "The learning rate had gone to its end by then, {rate:sci} at step {rate_step:n}: a part "
        "of that fall is due to its decay, and more steps at such a rate would bring nothing.",
        "Para entonces la tasa de aprendizaje había llegado a su final, {rate:sci} en el paso "
        "{rate_step:n}: parte de esa bajada se debe a su decaimiento, y más pasos con esa tasa no "
        "traerían nada.",
    ),
    "report.still_improving.rising": (
        "The learning rate was still rising ({rate:sci} at step {rate_step:n}): how the loss goes "
        "on from there, these rows cannot foretell.",
        "La tasa de aprendizaje aún subía ({rate:sci} en el paso {rate_step:n}): cómo sigue la "
        "pérdida desde ahí, estas filas no lo pueden prever.",
    ),
    "report.still_improving.advice": (
        "Train longer. If the learning rate had already gone to its end value, plan a new run with "
        "more steps rather than going on with this one.",
        "Entrena más. Si la tasa de aprendizaje ya había llegado a su valor final, planea una "
        "ejecución nueva con más pasos en vez de continuar esta.",
    ),
    "report.plateau.validation": (
        "From step {step:n} to the end ({part:pct} of the steps) the validation loss hardly moved: "
        "{early:loss} in the first half of that stretch, {late:loss} in the second (medians), of a "
        "whole fall of {won:loss}.",
        "Desde el paso {step:n} hasta el final ({part:pct} de los pasos) la pérdida de validación "
        "apenas se movió: {early:loss} en la primera mitad de ese tramo y {late:loss} en la "
        "segunda (medianas), de una bajada total de {won:loss}.",
    ),
    "report.plateau.training": (
        "From step {step:n} to the end ({part:pct} of the steps) the training loss hardly moved: "
        "{early:loss} in the first half of that stretch, {late:loss} in the second (medians), of a "
        "whole fall of {won:loss}.",
        "Desde el paso {step:n} hasta el final ({part:pct} de los pasos) la pérdida de "
        "entrenamiento apenas se movió: {early:loss} en la primera mitad de ese tramo y "
        "{late:loss} en la segunda (medianas), de una bajada total de {won:loss}.",
    ),
    "report.plateau.advice": (
        "More steps of the same will not help: stop earlier, or change the data, the model or the "
        "learning rate.",
        "Más pasos iguales no ayudarán: para antes, o cambia los datos, el modelo o la tasa de "
        "aprendizaje.",
    ),
    "report.no_validation": (
        "No validation loss in this log. The training losses (rows: {loss_rows:n}) only show how "
        "well the model knows what it was trained on.",
        "No hay pérdida de validación en este registro. Las pérdidas de entrenamiento (filas: "
        "{loss_rows:n}) solo muestran lo bien que el modelo conoce aquello con lo que se entrenó.",
    ),
    "report.no_validation.measured": (
        "No validation loss in this log, though it has evaluations ({evals:n}): {metric} was "
        "best at step {step:n} ({value:loss}) and ended at {last_value:loss} (step "
        "{last_step:n}). The training losses (rows: {loss_rows:n}) only show how well the model "
        "knows what it was trained on.",
        "No hay pérdida de validación en este registro, aunque sí evaluaciones ({evals:n}): "
        "{metric} tuvo su mejor valor en el paso {step:n} ({value:loss}) y terminó en "
        "{last_value:loss} (paso {last_step:n}). Las pérdidas de entrenamiento (filas: "
        "{loss_rows:n}) solo muestran lo bien que el modelo conoce aquello con lo que se "
        "entrenó.",
    ),
    "report.no_validation.measured.advice": (
        "Log the loss of what is held out as well; until then choose the checkpoint by this "
        "measure.",
        "Registra también la pérdida de lo apartado; hasta entonces, elige el punto de control "
        "por esta medida.",
    ),
    "report.no_validation.evaluated": (
        "No validation loss in this log, though it has evaluations ({evals:n}). The training "
        "losses (rows: {loss_rows:n}) only show how well the model knows what it was trained "
        "on.",
        "No hay pérdida de validación en este registro, aunque sí evaluaciones ({evals:n}). Las "
        "pérdidas de entrenamiento (filas: {loss_rows:n}) solo muestran lo bien que el modelo "
        "conoce aquello con lo que se entrenó.",
    ),
    "report.no_validation.evaluated.advice": (
        "Log the loss of what is held out as well.",
        "Registra también la pérdida de lo apartado.",
    ),
    "report.no_validation.advice": (
        "Hold a part of the data out (a tenth is usual), evaluate it while training, and stop when "
        "its loss no longer falls.",
        "Aparta una parte de los datos (lo habitual es una décima parte), evalúala durante el "
        "entrenamiento y para cuando su pérdida deje de bajar.",
    ),
    "report.validation_doubtful.copies": (
        "Held-out documents that stand in the training data too: {copied:n} of {total:n}. The "
        "validation loss looks better than it is.",
        "Documentos apartados que están también en los datos de entrenamiento: {copied:n} de "
        "{total:n}. La pérdida de validación parece mejor de lo que es.",
    ),
    "report.validation_doubtful.tokens": (
        "The held-out text has only {held_out_tokens:n} tokens: its loss says little about other "
        "text, however smooth its curve.",
        "El texto apartado tiene solo {held_out_tokens:n} tokens: su pérdida dice poco de otros "
        "textos, por lisa que sea la curva.",
    ),
    "report.validation_doubtful.examples": (
        "Examples in the held-out set: only {held_out:n} (their rate times the time that they "
        "took). Its loss says little about others, however smooth its curve.",
        "Ejemplos del conjunto apartado: solo {held_out:n} (su ritmo por el tiempo que llevaron). "
        "Su pérdida dice poco de otros, por lisa que sea la curva.",
    ),
    "report.validation_doubtful.near_zero": (
        "After {passes:x} passes over the same data the validation loss, too, is close to zero: "
        "{val_first:loss} at first, {val_last:loss} at step {val_step:n}. Text that was really "
        "held out rarely comes so low: see whether it stands in the training data, or is so simple "
        "that it has only one answer.",
        "Después de {passes:x} pasadas por los mismos datos, también la pérdida de validación está "
        "cerca de cero: {val_first:loss} al principio, {val_last:loss} en el paso {val_step:n}. Un "
        "texto apartado de verdad rara vez baja tanto: mira si está en los datos de entrenamiento "
        "o si es tan simple que solo tiene una respuesta.",
    ),
    "report.validation_doubtful.advice": (
        "Hold out more, and nothing that is also trained on; a tenth of the data is usual.",
        "Aparta más, y nada con lo que también se entrene; lo habitual es una décima parte de los "
        "datos.",
    ),
    "report.validation_unmoved": (
        "The validation loss never moved: all of its values ({evals:n}) lie between {least:loss} "
        "and {most:loss}, while the training loss went from {first:loss} to {last:loss}. What the "
        "model learned does not carry over to the held-out text: it was learned by heart, or that "
        "text is of another kind.",
        "La pérdida de validación no se movió: todos sus valores ({evals:n}) están entre "
        "{least:loss} y {most:loss}, mientras la de entrenamiento pasaba de {first:loss} a "
        "{last:loss}. Lo que el modelo aprendió no le sirve con el texto apartado: se lo aprendió "
        "de memoria, o ese texto es de otra clase.",
    ),
    "report.validation_unmoved.advice": (
        "Compare some held-out examples with the training data, and look whether the evaluation "
        "uses the model that is trained (an adapter may be switched off there).",
        "Compara algunos ejemplos apartados con los de entrenamiento y mira si la evaluación usa "
        "el modelo que se entrena (quizá ahí el adaptador está desactivado).",
    ),
    "report.training_flat": (
        "The training loss did not fall beyond its noise: {early:loss} on average in the first "
        "half of its rows ({loss_rows:n}), {late:loss} in the second; single rows lie between "
        "{least:loss} and {most:loss}.",
        "La pérdida de entrenamiento no bajó más que su ruido: de media {early:loss} en la primera "
        "mitad de sus filas ({loss_rows:n}) y {late:loss} en la segunda; las filas sueltas están "
        "entre {least:loss} y {most:loss}.",
    ),
    "report.training_flat.advice": (
        "Train on ten examples until the loss is near zero; where it does not get there, look at "
        "the labels, at what is frozen, and at the learning rate: too high a rate makes a loss "
        "wander, too low a rate keeps it in its place.",
        "Entrena con diez ejemplos hasta que la pérdida sea casi cero; si no llega, mira las "
        "etiquetas, qué está congelado y la tasa de aprendizaje: una demasiado alta hace vagar la "
        "pérdida, y una demasiado baja la deja donde está.",
    ),
    "report.other_set_rose": (
        "On {set} the validation loss rose: from {best:loss} (step {step:n}) to {last:loss} (step "
        "{last_step:n}), while the verdict goes by {main}. Other held-out sets: {others:n}; of "
        "these rose: {rose:n}.",
        "Con {set} la pérdida de validación subió: de {best:loss} (paso {step:n}) a {last:loss} "
        "(paso {last_step:n}), y el veredicto se basa en {main}. Otros conjuntos apartados: "
        "{others:n}; de ellos subieron: {rose:n}.",
    ),
    "report.other_set_rose.advice": (
        "Decide which of the sets stands for what you want of the model, and choose the checkpoint "
        "by it; for {set} it is that of step {step:n}.",
        "Decide qué conjunto representa lo que quieres del modelo y elige por él el punto de "
        "control; para {set} es el del paso {step:n}.",
    ),
    "report.memorisation_risk": (
        "The same data was seen {passes:x} times and the training loss fell from {first:loss} "
        "to {last:loss}, with no validation loss to set against it: take it for memorised until "
        "an exam on new questions shows otherwise.",
        "Los mismos datos se vieron {passes:x} veces y la pérdida de entrenamiento bajó de "
        "{first:loss} a {last:loss}, sin pérdida de validación con que contrastarla: dalo por "
        "memorizado hasta que un examen con preguntas nuevas muestre lo contrario.",
    ),
    "report.memorisation_risk.possible": (
        "The same data was seen {passes:x} times and the training loss fell from {first:loss} "
        "to {last:loss}, with no validation loss to set against it: how much of that was "
        "learned by heart, only an exam on new questions can show.",
        "Los mismos datos se vieron {passes:x} veces y la pérdida de entrenamiento bajó de "
        "{first:loss} a {last:loss}, sin pérdida de validación con que contrastarla: cuánto de "
        "eso se aprendió de memoria solo lo puede mostrar un examen con preguntas nuevas.",
    ),
    "report.memorisation_risk.advice": (
        "Fewer passes, more examples, and an exam of unseen questions before and after training.",
        "Menos pasadas, más ejemplos y un examen de preguntas nunca vistas antes y después de "
        "entrenar.",
    ),
    "report.memorisation_risk.size": (
        "The model has {parameters:n} weights, {each:x} for every token that it was trained on: "
        "room enough to learn them by heart.",
        "El modelo tiene {parameters:n} pesos, {each:x} por cada token con el que entrenó: sitio "
        "de sobra para aprendérselos de memoria.",
    ),
    "report.memorisation_risk.examples": (
        "The same {examples:n} examples were seen {passes:x} times and the training loss fell "
        "from {first:loss} to {last:loss}, with no validation loss to set against it: take it "
        "for memorised until an exam on new questions shows otherwise.",
        "Los mismos {examples:n} ejemplos se vieron {passes:x} veces y la pérdida de "
        "entrenamiento bajó de {first:loss} a {last:loss}, sin pérdida de validación con que "
        "contrastarla: dalo por memorizado hasta que un examen con preguntas nuevas muestre lo "
        "contrario.",
    ),
    "report.worse_than_base": (
        "The exam got worse. Right answers before the first update: {first_right:n} of "
        "{first_total:n}; at step {last_step:n}: {last_right:n} of {last_total:n}.",
        "El examen empeoró. Aciertos antes del primer paso: {first_right:n} de {first_total:n}; en "
        "el paso {last_step:n}: {last_right:n} de {last_total:n}.",
    ),
    "report.worse_than_base.paired": (
        "The exam got worse than the base: of {first_total:n} questions, {first_right:n} were "
        "right before training and {last_right:n} at step {last_step:n}. Right answers lost: "
        "{lost:n}; gained: {gained:n} (exact paired test, p = {p_value:p}).",
        "El examen salió peor que el del modelo base: de {first_total:n} preguntas, acertaba "
        "{first_right:n} antes de entrenar y {last_right:n} en el paso {last_step:n}. Aciertos "
        "perdidos: {lost:n}; ganados: {gained:n} (prueba exacta por pares, p = {p_value:p}).",
    ),
    "report.worse_than_base.kept_first": (
        "best/ is the base, as it was before training: {kept_right:n} of {kept_total:n} right.",
        "best/ es el modelo base, tal como estaba antes de entrenar. Sus aciertos: {kept_right:n} "
        "de {kept_total:n}.",
    ),
    "report.worse_than_base.kept_other": (
        "best/ holds the model of step {kept_step:n}: {kept_right:n} of {kept_total:n} right.",
        "best/ guarda el modelo del paso {kept_step:n}. Sus aciertos: {kept_right:n} de "
        "{kept_total:n}.",
    ),
    "report.worse_than_base.kept_exam": (
        "best/ is the base, as it was before training: no later exam ({later:n} of them) had more "
        "right answers than its {first_right:n} of {first_total:n}. The best of them, at step "
        "{top_step:n}, had {top_right:n}.",
        "best/ es el modelo base, tal como estaba antes de entrenar: ningún examen posterior (hubo "
        "{later:n}) tuvo más aciertos que los suyos, {first_right:n} de {first_total:n}. El mejor "
        "de ellos, en el paso {top_step:n}, tuvo {top_right:n}.",
    ),
    "report.worse_than_base.kept_val_loss": (
        "best/ is the base, as it was before training: no later evaluation ({later:n} of them) had "
        "a lower validation loss than its {first:loss}. The lowest of them is {low:loss}, at step "
        "{low_step:n}.",
        "best/ es el modelo base, tal como estaba antes de entrenar: ninguna evaluación posterior "
        "(hubo {later:n}) tuvo una pérdida de validación menor que la suya, {first:loss}. La menor "
        "de ellas es {low:loss}, en el paso {low_step:n}.",
    ),
    "report.worse_than_base.kept_train_loss": (
        "best/ is the base, as it was before training: no later evaluation ({later:n} of them) had "
        "a lower training loss than its {first:loss}. The lowest of them is {low:loss}, at step "
        "{low_step:n}.",
        "best/ es el modelo base, tal como estaba antes de entrenar: ninguna evaluación posterior "
        "(hubo {later:n}) tuvo una pérdida de entrenamiento menor que la suya, {first:loss}. La "
        "menor de ellas es {low:loss}, en el paso {low_step:n}.",
    ),
    "report.worse_than_base.first": (
        "That is by the loss alone. The exam says otherwise, and it goes first: see “No better "
        "than before”.",
        "Eso es solo según la pérdida. El examen dice otra cosa, y va primero: mira «No mejor que "
        "antes».",
    ),
    "report.worse_than_base.advice": (
        "Use the base model; look at the training examples, lower the learning rate, train less.",
        "Usa el modelo base; revisa los ejemplos de entrenamiento, baja la tasa de aprendizaje y "
        "entrena menos.",
    ),
    "report.loss_spike": (
        "Spikes in the training loss, far above the noise around them: {rows:n}. The one that "
        "stands out most is {loss:loss} at step {step:n}; the rows before and after it have "
        "{around:loss} at most (medians).",
        "Picos en la pérdida de entrenamiento, muy por encima del ruido de alrededor: {rows:n}. "
        "El que más sobresale es {loss:loss} en el paso {step:n}; las filas anteriores y "
        "posteriores tienen {around:loss} como mucho (medianas).",
    ),
    "report.loss_spike.advice": (
        "Look at the data of those steps; if the loss does not come back down, lower the learning "
        "rate.",
        "Mira los datos de esos pasos; si la pérdida no vuelve a bajar, reduce la tasa de "
        "aprendizaje.",
    ),
    "report.gradient_spike": (
        "Gradient norms several times those around them: {rows:n}. The one that stands out most "
        "is {norm:loss} at step {step:n}; the rows before and after it have {around:loss} at "
        "most (medians).",
        "Normas del gradiente varias veces mayores que las de alrededor: {rows:n}. La que más "
        "sobresale es {norm:loss} en el paso {step:n}; las filas anteriores y posteriores "
        "tienen {around:loss} como mucho (medianas).",
    ),
    "report.gradient_spike.advice": (
        "If gradients are clipped, as most trainers do at 1, little harm is done; else clip them, "
        "and look at the data of those steps.",
        "Si los gradientes se recortan, como hacen casi todos los programas (a 1), apenas hay "
        "daño; si no, recórtalos y mira los datos de esos pasos.",
    ),
    "report.spike_rows.source": (
        "That update read stretches of the training data: {read:n}; one of them is {source}. All "
        "are named in the last row of log.jsonl.",
        "Esa actualización leyó fragmentos de los datos de entrenamiento: {read:n}; uno de ellos "
        "es {source}. Todos figuran en la última línea de log.jsonl.",
    ),
    "report.spike_rows.source_worst": (
        "That update read stretches of the training data: {read:n}. The one that the model at the "
        "end of the run predicts worst is {source}: {worst:loss} nats per token, where the middle "
        "one has {middle:loss}. All are named in the last row of log.jsonl.",
        "Esa actualización leyó fragmentos de los datos de entrenamiento: {read:n}. El que peor "
        "predice el modelo al acabar el entrenamiento es {source}: {worst:loss} nats por token, "
        "cuando el del medio tiene {middle:loss}. Todos figuran en la última línea de log.jsonl.",
    ),
    "report.spike_rows.token": (
        "That update read stretches of the training data: {read:n}; one of them begins at token "
        "{first:n}. All are named in the last row of log.jsonl.",
        "Esa actualización leyó fragmentos de los datos de entrenamiento: {read:n}; uno de ellos "
        "empieza en el token {first:n}. Todos figuran en la última línea de log.jsonl.",
    ),
    "report.spike_rows.token_worst": (
        "That update read stretches of the training data: {read:n}. The one that the model at the "
        "end of the run predicts worst begins at token {first:n}: {worst:loss} nats per token, "
        "where the middle one has {middle:loss}. All are named in the last row of log.jsonl.",
        "Esa actualización leyó fragmentos de los datos de entrenamiento: {read:n}. El que peor "
        "predice el modelo al acabar el entrenamiento empieza en el token {first:n}: {worst:loss} "
        "nats por token, cuando el del medio tiene {middle:loss}. Todos figuran en la última línea "
        "de log.jsonl.",
    ),
    "report.gradient_peak": (
        "The gradient norm was highest, {norm:loss}, at step {norm_step:n}, as the warm-up ended.",
        "La norma del gradiente fue máxima, {norm:loss}, en el paso {norm_step:n}, al acabar el "
        "calentamiento.",
    ),
    "report.learning_rate_zero.all": (
        "The learning rate was 0 in all {rows:n} rows that name it (steps {step:n} to "
        "{last_step:n}): nothing could be learned.",
        "La tasa de aprendizaje fue 0 en las {rows:n} filas que la indican (pasos {step:n} a "
        "{last_step:n}): no se podía aprender nada.",
    ),
    "report.learning_rate_zero.all.advice": (
        "Set a learning rate above 0 and look at the schedule: its length may be wrong.",
        "Pon una tasa de aprendizaje mayor que 0 y revisa su plan: puede que su duración esté mal.",
    ),
    "report.learning_rate_zero.tail": (
        "The learning rate stands in the log as 0 from step {step:n} to step {last_step:n}, "
        "{part:pct} of the run: unless small rates were rounded, those steps changed nothing.",
        "En el registro la tasa de aprendizaje es 0 del paso {step:n} al {last_step:n}, un "
        "{part:pct} de la ejecución: salvo que se redondearan tasas pequeñas, esos pasos no "
        "cambiaron nada.",
    ),
    "report.learning_rate_zero.rounded": (
        "The learning rate stands as 0 in all {rows:n} rows that name it (steps {step:n} to "
        "{last_step:n}), yet the training loss fell: most likely small rates were rounded to 0 as "
        "they were written.",
        "La tasa de aprendizaje figura como 0 en las {rows:n} filas que la indican (pasos {step:n} "
        "a {last_step:n}), y aun así la pérdida de entrenamiento bajó: lo más probable es que al "
        "escribir las tasas pequeñas se redondearan a 0.",
    ),
    "report.learning_rate_zero.rounded.advice": (
        "Log the learning rate with more digits, as 3e-05.",
        "Registra la tasa de aprendizaje con más cifras, como 3e-05.",
    ),
    "report.learning_rate_zero.tail.advice": (
        "Make the schedule as long as the run, or the run as short as the schedule.",
        "Haz el plan tan largo como la ejecución, o la ejecución tan corta como el plan.",
    ),
    "report.learning_rate_too_high": (
        "Most likely the learning rate was too high: the loss broke away after step {step:n}, at a "
        "rate of {rate:sci} (step {rate_step:n}), as the rate was on its way to its peak of "
        "{peak:sci} (step {peak_step:n}) or just past it.",
        "Lo más probable es que la tasa de aprendizaje fuera demasiado alta: la pérdida se disparó "
        "después del paso {step:n}, con una tasa de {rate:sci} (paso {rate_step:n}), camino de su "
        "máximo de {peak:sci} (paso {peak_step:n}) o justo después de él.",
    ),
    "report.learning_rate_too_high.advice": (
        "Try a tenth of it, with clipped gradients. For LoRA with AdamW 1e-4 to 5e-4 is usual, for "
        "a whole model 1e-5 to 5e-5.",
        "Prueba con la décima parte y con gradientes recortados. Con LoRA y AdamW lo habitual es "
        "de 1e-4 a 5e-4; para un modelo entero, de 1e-5 a 5e-5.",
    ),
    "report.schedule.rising": (
        "Learning rate: it rose in every row, up to {peak:sci} at step {last_step:n}: the log ends "
        "in the warm-up.",
        "Tasa de aprendizaje: subió en todas las filas, hasta {peak:sci} en el paso {last_step:n}: "
        "el registro acaba en el calentamiento.",
    ),
    "report.schedule.rising.advice": (
        "Train on past the warm-up, or make it shorter: a few hundredths of the run are usual.",
        "Entrena más allá del calentamiento, o hazlo más corto: lo habitual son unas pocas "
        "centésimas de la ejecución.",
    ),
    "report.schedule.advice": (
        "Nothing to do: this is how the learning rate went.",
        "No hay nada que hacer: así fue la tasa de aprendizaje.",
    ),
    "report.data_repeated": (
        "The same data was seen {passes:x} times. For language models up to about {free:n} "
        "passes are nearly as good as new data; later ones bring less and less.",
        "Los mismos datos se vieron {passes:x} veces. En los modelos de lenguaje, hasta unas "
        "{free:n} pasadas valen casi lo mismo que datos nuevos; las siguientes, cada vez menos.",
    ),
    "report.data_repeated.advice": (
        "More data would help more than more passes.",
        "Más datos ayudarían más que más pasadas.",
    ),
    "report.memorisation_risk.held_out": (
        "The same data was seen {passes:x} times and the training loss fell from {first:loss} to "
        "{last:loss}: the model nearly knows it by heart, so only what was held out can show "
        "whether it learned more than that.",
        "Los mismos datos se vieron {passes:x} veces y la pérdida de entrenamiento bajó de "
        "{first:loss} a {last:loss}: el modelo casi se los sabe de memoria, así que solo lo "
        "apartado puede mostrar si aprendió algo más.",
    ),
    "report.overfitting.sets": (
        "(Read from {set}. Held-out sets: {sets:n}; of these ended above their lowest loss: "
        "{rose:n}.)",
        "(Según {set}. Conjuntos apartados: {sets:n}; de ellos terminaron por encima de su menor "
        "pérdida: {rose:n}.)",
    ),
    "report.worse_than_base.loss": (
        "The validation loss is worse than before the first update: {first:loss} there, "
        "{last:loss} at step {last_step:n}.",
        "La pérdida de validación es peor que antes del primer paso: {first:loss} "
        "entonces, {last:loss} en el paso {last_step:n}.",
    ),
    "report.abnormal_start_loss.high": (
        "The first training loss, {loss:loss} (step {step:n}), is worse than blind guessing, if it "
        "is in nats per token: among {vocabulary:n} tokens, more than any common model has, that "
        "would be {blind:loss}.",
        "La primera pérdida de entrenamiento, {loss:loss} (paso {step:n}), es peor que adivinar al "
        "azar, si está en nats por token: entre {vocabulary:n} tokens, más de los que tiene "
        "cualquier modelo común, sería {blind:loss}.",
    ),
    "report.abnormal_start_loss.zero": (
        "The training loss is exactly 0 from the first row (step {step:n}): no token counted "
        "towards it, or the numbers underflowed.",
        "La pérdida de entrenamiento es exactamente 0 desde la primera fila (paso {step:n}): "
        "ningún token contaba para ella o los números se quedaron sin precisión.",
    ),
    "report.abnormal_start_loss.zero.advice": (
        "Look at a training example as the model sees it: labels, mask, chat template, "
        "tokenizer. With fp16, try bf16 or fp32.",
        "Mira un ejemplo tal como lo ve el modelo: etiquetas, máscara, plantilla de "
        "conversación, tokenizador. Con fp16, prueba con bf16 o fp32.",
    ),
    "report.abnormal_start_loss.zero_from": (
        "From step {step:n} to the end (step {last_step:n}) the training loss is exactly 0 "
        "(rows: {rows:n}), after {before:loss} at step {before_step:n}: no token counted "
        "towards it any more, or the numbers broke down.",
        "Desde el paso {step:n} hasta el final (paso {last_step:n}) la pérdida de entrenamiento "
        "es exactamente 0 (filas: {rows:n}), después de {before:loss} en el paso "
        "{before_step:n}: ya ningún token contaba para ella o los números se estropearon.",
    ),
    "report.abnormal_start_loss.zero_from.advice": (
        "Use the model from before that step. Look at the gradient norm there and at the data "
        "that followed; with fp16, try bf16 or fp32.",
        "Usa el modelo de antes de ese paso. Mira allí la norma del gradiente y los datos que "
        "venían después; con fp16, prueba con bf16 o fp32.",
    ),
    "report.abnormal_start_loss.advice": (
        "Look at a training example as the model sees it: labels, mask, chat template, tokenizer. "
        "Some trainers also multiply the logged loss by the accumulation steps.",
        "Mira un ejemplo tal como lo ve el modelo: etiquetas, máscara, plantilla de conversación, "
        "tokenizador. Algunos programas, además, multiplican la pérdida registrada por los pasos "
        "de acumulación.",
    ),
    "report.losses_not_comparable.above": (
        "Training and validation loss cannot be compared directly: at the evaluations the training "
        "loss is {ratio:x} times the validation loss (median of the later ones of {evals:n}; last: "
        "{train:loss} against {val:loss} at step {step:n}).",
        "Las pérdidas de entrenamiento y de validación no se pueden comparar directamente: en las "
        "evaluaciones, la de entrenamiento es {ratio:x} veces la de validación (mediana de las "
        "últimas de {evals:n}; la última: {train:loss} frente a {val:loss} en el paso {step:n}).",
    ),
    "report.losses_not_comparable.start": (
        "Training and validation loss cannot be compared directly: already at the first evaluation "
        "(step {step:n}) the validation loss was {val:loss}, the training loss {train:loss} (step "
        "{train_step:n}), before anything could be learned by heart.",
        "Las pérdidas de entrenamiento y de validación no se pueden comparar directamente: ya en "
        "la primera evaluación (paso {step:n}) la de validación era {val:loss} y la de "
        "entrenamiento {train:loss} (paso {train_step:n}), antes de que se pudiera memorizar nada.",
    ),
    "report.losses_not_comparable.advice": (
        "Judge each by its own course. Dropout, label smoothing, other data or another way of "
        "averaging make such gaps; log both in the same way.",
        "Juzga cada una por su propio curso. El dropout, el suavizado de etiquetas, otros datos u "
        "otra forma de promediar causan esas diferencias; registra ambas de la misma manera.",
    ),
    "report.metric_disagrees_with_loss.better": (
        "{metric} got better while the validation loss got worse: from {value:loss} to "
        "{last_value:loss}, and the loss from {loss:loss} (step {step:n}) to {last_loss:loss} "
        "(step {last_step:n}).",
        "{metric} mejoró mientras la pérdida de validación empeoraba: de {value:loss} a "
        "{last_value:loss}, y la pérdida de {loss:loss} (paso {step:n}) a {last_loss:loss} (paso "
        "{last_step:n}).",
    ),
    "report.metric_disagrees_with_loss.worse": (
        "{metric} got worse while the validation loss got better: from {value:loss} to "
        "{last_value:loss}, and the loss from {loss:loss} (step {step:n}) to {last_loss:loss} "
        "(step {last_step:n}).",
        "{metric} empeoró mientras la pérdida de validación mejoraba: de {value:loss} a "
        "{last_value:loss}, y la pérdida de {loss:loss} (paso {step:n}) a {last_loss:loss} (paso "
        "{last_step:n}).",
    ),
    "report.metric_disagrees_with_loss.advice": (
        "Decide which of the two is your aim, and choose the checkpoint by it. A model may answer "
        "better while growing too sure of its mistakes.",
        "Decide cuál de las dos es tu objetivo y elige el punto de control por ella. Un modelo "
        "puede responder mejor y a la vez estar demasiado seguro de sus errores.",
    ),
    "report.not_a_loss_objective.reinforcement": (
        "This is a reinforcement run: its loss (rows: {loss_rows:n}) does not say how well text is "
        "predicted, and need not fall.",
        "Es un entrenamiento por refuerzo: su pérdida (filas: {loss_rows:n}) no dice lo bien que "
        "se predice el texto, y no tiene por qué bajar.",
    ),
    "report.not_a_loss_objective.preference": (
        "This is a preference run: its loss (rows: {loss_rows:n}) says how well preferred answers "
        "are told from rejected ones, not how well text is predicted.",
        "Es un entrenamiento por preferencias: su pérdida (filas: {loss_rows:n}) dice lo bien que "
        "se distinguen las respuestas preferidas de las rechazadas, no lo bien que se predice el "
        "texto.",
    ),
    "report.not_a_loss_objective.advice": (
        "Read the answers, and hold an exam before and after.",
        "Lee las respuestas y haz un examen antes y después.",
    ),
    "report.reward": (
        "{name} went from {first_reward:loss} (step {first_step:n}) to {last_reward:loss} (step "
        "{last_step:n}).",
        "{name} pasó de {first_reward:loss} (paso {first_step:n}) a {last_reward:loss} (paso "
        "{last_step:n}).",
    ),
    "report.reward_fell": (
        "{name} fell: from {top:loss} at its highest (step {step:n}, running median) to {end:loss} "
        "at the end (median of the last {rows:n} rows, up to step {last_step:n}); at the start it "
        "was {start:loss}.",
        "{name} cayó: de {top:loss} en su máximo (paso {step:n}, mediana móvil) a {end:loss} al "
        "final (mediana de las últimas {rows:n} filas, hasta el paso {last_step:n}); al principio "
        "era {start:loss}.",
    ),
    "report.reward_fell.advice": (
        "Use a checkpoint near step {step:n} if there is one. Train again with a lower learning "
        "rate or a stronger pull towards the reference model (KL), and read what the model writes.",
        "Usa un punto de control cercano al paso {step:n} si lo hay. Entrena otra vez con una tasa "
        "de aprendizaje menor o más sujeto al modelo de referencia (KL), y lee lo que escribe el "
        "modelo.",
    ),
    "report.reward_fell.throughout": (
        "{name} fell: from {start:loss} to {end:loss} (medians of the first and the last {rows:n} "
        "rows, up to step {last_step:n}).",
        "{name} cayó: de {start:loss} a {end:loss} (medianas de las primeras y las últimas "
        "{rows:n} filas, hasta el paso {last_step:n}).",
    ),
    "report.reward_fell.throughout.advice": (
        "Train again with a lower learning rate or a stronger pull towards the reference model "
        "(KL), and read what the model writes: the one before training may be better.",
        "Entrena otra vez con una tasa de aprendizaje menor o más sujeto al modelo de referencia "
        "(KL), y lee lo que escribe el modelo: puede que el de antes de entrenar sea mejor.",
    ),
    "report.reward_fell.chosen": (
        "{name} went from {start:loss} to {end:loss} (medians of the first and the last {rows:n} "
        "rows, up to step {last_step:n}): the preferred answers, too, became less likely than the "
        "reference model has them.",
        "{name} pasó de {start:loss} a {end:loss} (medianas de las primeras y las últimas {rows:n} "
        "filas, hasta el paso {last_step:n}): también las respuestas preferidas se hicieron menos "
        "probables de lo que son para el modelo de referencia.",
    ),
    "report.reward_fell.chosen.advice": (
        "Common with DPO, and no failure by itself: read the answers. A lower learning rate, fewer "
        "steps or a supervised term on the preferred answers hold it back.",
        "Es común con DPO y por sí solo no es un fallo: lee las respuestas. Lo frenan una tasa de "
        "aprendizaje menor, menos pasos o un término supervisado con las respuestas preferidas.",
    ),
    "report.mean_is_not_last_loss": (
        "The summary's train_loss, {mean:loss}, is the mean over the whole run; the last logged "
        "training loss is {last:loss} (step {last_step:n}).",
        "La train_loss del resumen, {mean:loss}, es la media de toda la ejecución; la última "
        "pérdida de entrenamiento registrada es {last:loss} (paso {last_step:n}).",
    ),
    "report.mean_is_not_last_loss.alone": (
        "The train_loss of this summary, {mean:loss}, is the mean over the whole run, not the loss "
        "at its end.",
        "La train_loss de este resumen, {mean:loss}, es la media de toda la ejecución, no la "
        "pérdida final.",
    ),
    "report.mean_is_not_last_loss.advice": (
        "Do not report the mean as the final loss.",
        "No presentes la media como si fuera la pérdida final.",
    ),
    "report.log_incomplete.steps": (
        "The log ends at step {steps:n} of {asked:n} ({part:pct}): stopped early, interrupted, or "
        "a checkpoint of a run that went on.",
        "El registro acaba en el paso {steps:n} de {asked:n} ({part:pct}): se paró antes, se "
        "interrumpió o es un punto de control de una ejecución que siguió.",
    ),
    "report.log_incomplete.summary": (
        "This file only sums a run up: it holds no curve.",
        "Este archivo solo resume una ejecución: no contiene ninguna curva.",
    ),
    "report.log_incomplete.advice": (
        "Give the log of the whole run (trainer_state.json of the last checkpoint, for example).",
        "Indica el registro de la ejecución entera (por ejemplo, el trainer_state.json del último "
        "punto de control).",
    ),
    "report.log_inconsistent.epochs": (
        "The run was set to {asked_epochs:x} epochs and did {epochs:x}.",
        "La ejecución estaba puesta a {asked_epochs:x} épocas e hizo {epochs:x}.",
    ),
    "report.log_inconsistent.rate": (
        "At {rate:rate} examples per second the summary counts {shown:n} examples in all; "
        "{examples:n} examples seen {passes:x} times are {trained:n}.",
        "Con {rate:rate} ejemplos por segundo, el resumen cuenta {shown:n} ejemplos en total; "
        "{examples:n} ejemplos vistos {passes:x} veces son {trained:n}.",
    ),
    "report.log_inconsistent.pace": (
        "At {pace:rate} steps per second the summary counts {paced:n} steps; the log has "
        "{steps:n}.",
        "Con {pace:rate} pasos por segundo, el resumen cuenta {paced:n} pasos; el registro tiene "
        "{steps:n}.",
    ),
    "report.log_inconsistent.flops": (
        "The summary's total_flos, {flops:sci} for {shown:n} examples, is {flops_each:sci} each: "
        "too little for any language model of use.",
        "El total_flos del resumen, {flops:sci} para {shown:n} ejemplos, da {flops_each:sci} por "
        "ejemplo: demasiado poco para un modelo de lenguaje útil.",
    ),
    "report.log_inconsistent.batch": (
        "At {rate:rate} examples and {pace:rate} steps per second, a step would have less than one "
        "example.",
        "Con {rate:rate} ejemplos y {pace:rate} pasos por segundo, un paso tendría menos de un "
        "ejemplo.",
    ),
    "report.log_inconsistent.packed": (
        "The log counts {all_params:n} parameters, {packed:pct} of what the name {model} promises: "
        "packed bytes of 4-bit layers, two weights each, were counted as parameters. Shares of "
        "trained parameters come out too large for that reason.",
        "El registro cuenta {all_params:n} parámetros, el {packed:pct} de lo que promete el nombre "
        "{model}: se contaron como parámetros los bytes empaquetados de las capas de 4 bits, con "
        "dos pesos cada uno. Por eso la parte de parámetros entrenados sale demasiado grande.",
    ),
    "report.log_inconsistent.share": (
        "The log says that {percent:rate} % of the parameters are trained; its own counts give "
        "{share_percent:rate} %.",
        "El registro dice que se entrena el {percent:rate} % de los parámetros; sus propias "
        "cuentas dan el {share_percent:rate} %.",
    ),
    "report.log_inconsistent.mean": (
        "The summary's mean loss, {mean:loss}, is not the mean of the rows, {rows_mean:loss}: a "
        "resumed run, or losses logged in another way.",
        "La pérdida media del resumen, {mean:loss}, no es la media de las filas, "
        "{rows_mean:loss}: una ejecución reanudada o pérdidas registradas de otra manera.",
    ),
    "report.log_inconsistent.unread": (
        "Lines of the file that could not be read, and are left out: {unread:n}.",
        "Líneas del archivo que no se pudieron leer y quedan fuera: {unread:n}.",
    ),
    "report.log_inconsistent.unsorted": (
        "The rows were not in the order of their steps ({unsorted:n} times the step went back); "
        "they were sorted.",
        "Las filas no estaban en el orden de sus pasos ({unsorted:n} veces el paso retrocedía); se "
        "han ordenado.",
    ),
    "report.log_inconsistent.repeated": (
        "Rows that repeat a step: {repeated:n}; the last of each counts.",
        "Filas que repiten un paso: {repeated:n}; cuenta la última de cada uno.",
    ),
    "report.log_inconsistent.advice": (
        "Do not compare these figures with those of other runs.",
        "No compares estas cifras con las de otras ejecuciones.",
    ),
    "report.resumed_run.resumed": (
        "The run was resumed (times: {times:n}): after step {before:n} the log goes on from step "
        "{after:n}. Repeated rows left out: {repeated:n}.",
        "La ejecución se reanudó (veces: {times:n}): después del paso {before:n} el registro sigue "
        "desde el paso {after:n}. Filas repetidas que no se cuentan: {repeated:n}.",
    ),
    "report.resumed_run.restarted": (
        "The log holds more than one run (new beginnings: {times:n}): after step {before:n} it "
        "begins anew at step {after:n}. Only one of them is read.",
        "El registro contiene más de una ejecución (nuevos comienzos: {times:n}): después del paso "
        "{before:n} empieza otra vez en el paso {after:n}. Solo se lee una de ellas.",
    ),
    "report.resumed_run.advice": (
        "Look whether the loss goes on where it was; if not, the optimizer or the data order was "
        "not restored.",
        "Mira si la pérdida sigue donde estaba; si no, no se restauró el optimizador o el orden de "
        "los datos.",
    ),
    "report.epoch_staircase": (
        "The training loss goes down by a stair at each new pass (boundaries: {boundaries:n}); the "
        "largest at the end of pass {epoch:n}, step {step:n}: {before:loss} before, {after:loss} "
        "after (means of {rows:n} rows). The model recognises examples it has seen.",
        "La pérdida de entrenamiento baja un escalón en cada nueva pasada (límites: "
        "{boundaries:n}); el mayor, al final de la pasada {epoch:n}, paso {step:n}: {before:loss} "
        "antes, {after:loss} después (medias de {rows:n} filas). El modelo reconoce ejemplos que "
        "ya ha visto.",
    ),
    "report.epoch_staircase.advice": (
        "Do not take these stairs for progress: judge by what was held out.",
        "No tomes esos escalones por progreso: juzga por lo que se apartó.",
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
    "report.ngram_yardstick": (
        "Against models that only count what follows what (in {tokens:n} training tokens):",
        "Frente a modelos que solo cuentan qué sigue a qué (en {tokens:n} tokens de "
        "entrenamiento):",
    ),
    "report.ngram_yardstick.advice": (
        "Below a yardstick, the model uses more than that much context. What it makes of the rest, "
        "samples and an exam show.",
        "Por debajo de una de estas marcas, el modelo usa más contexto que ella. Qué hace con el "
        "resto lo muestran las muestras y un examen.",
    ),
    "report.copied_text.none": (
        "Nothing that the model wrote stands word for word in the training data: 0 of "
        "{copied_of:n} tokens (samples: {samples:n}; stretches of {copied_shortest:n} tokens or "
        "more; {copied_searched:n} training tokens searched).",
        "Nada de lo que el modelo escribió está palabra por palabra en los datos de entrenamiento: "
        "0 de {copied_of:n} tokens (muestras: {samples:n}; tramos de {copied_shortest:n} tokens o "
        "más; se buscó en {copied_searched:n} tokens de entrenamiento).",
    ),
    "report.copied_text.some": (
        "Of what the model wrote, {part:pct1} stands word for word in the training data: "
        "{copied_tokens:n} of {copied_of:n} tokens (samples: {samples:n}; stretches of "
        "{copied_shortest:n} tokens or more; {copied_searched:n} training tokens searched). The "
        "longest has {copied_longest:n} tokens (step {copied_longest_step:n}).",
        "De lo que el modelo escribió, el {part:pct1} está palabra por palabra en los datos de "
        "entrenamiento: {copied_tokens:n} de {copied_of:n} tokens (muestras: {samples:n}; tramos "
        "de {copied_shortest:n} tokens o más; se buscó en {copied_searched:n} tokens de "
        "entrenamiento). El más largo tiene {copied_longest:n} tokens (paso "
        "{copied_longest_step:n}).",
    ),
    "report.copied_text.more": (
        "The model recites: {part:pct1} of what it wrote stands word for word in the training "
        "data ({copied_tokens:n} of {copied_of:n} tokens; samples: {copied_samples:n} of "
        "{samples:n}; stretches of {copied_shortest:n} tokens or more; {copied_searched:n} "
        "training tokens searched). The longest has {copied_longest:n} tokens (step "
        "{copied_longest_step:n}).",
        "El modelo recita: el {part:pct1} de lo que escribió está palabra por palabra en los "
        "datos de entrenamiento ({copied_tokens:n} de {copied_of:n} tokens; muestras: "
        "{copied_samples:n} de {samples:n}; tramos de {copied_shortest:n} tokens o más; se buscó "
        "en {copied_searched:n} tokens de entrenamiento). El más largo tiene {copied_longest:n} "
        "tokens (paso {copied_longest_step:n}).",
    ),
    "report.copied_text.chance": (
        "By chance: of held-out text in pieces of the same length, {held_out_part:pct1} stands "
        "there, {held_out_longest:n} tokens at most.",
        "Por azar: de textos apartados, en trozos de la misma longitud, está el "
        "{held_out_part:pct1}, con {held_out_longest:n} tokens como mucho.",
    ),
    "report.copied_text.advice": (
        "Read the samples beside the data before calling them the model's own.",
        "Lee las muestras junto a los datos antes de llamarlas propias del modelo.",
    ),
    "report.copied_text.more.advice": (
        "Do not take these samples for understanding. Train for fewer passes or on more data, and "
        "keep private texts out.",
        "No tomes estas muestras por comprensión. Entrena menos pasadas o con más datos, y deja "
        "fuera los textos privados.",
    ),
    "report.forecast.time": (
        "Forecast before the run: {forecast_seconds:time}; it took {spent_seconds:time} "
        "({times:x} times as long).",
        "Previsto antes de la ejecución: {forecast_seconds:time}; tardó {spent_seconds:time} "
        "({times:x} veces lo previsto).",
    ),
    "report.forecast.memory": (
        "Memory forecast: {forecast_bytes:gb}; the most in a row of the log was {bytes:gb} "
        "({memory_times:x} times as much).",
        "Memoria prevista: {forecast_bytes:gb}; la mayor en una fila del registro fue {bytes:gb} "
        "({memory_times:x} veces lo previsto).",
    ),
    "report.forecast.advice": (
        "Plan the next run on this machine by what this one took.",
        "Planifica la próxima ejecución en esta máquina con lo que necesitó esta.",
    ),
    "report.memory": (
        "Most memory in a row of the log: {bytes:gb} (step {step:n}).",
        "Mayor memoria en una fila del registro: {bytes:gb} (paso {step:n}).",
    ),
    "report.memory.room": (
        "The device has {room_bytes:gb}: {headroom:pct} of that was left.",
        "El dispositivo tiene {room_bytes:gb}: quedó libre un {headroom:pct}.",
    ),
    "report.memory.advice": (
        "Compare it with what the machine has before raising the batch or the context.",
        "Compárala con la que tiene la máquina antes de subir el lote o el contexto.",
    ),
    # What the log cannot tell, and what to log to know it.
    "report.unknown.generalisation": (
        "Whether the model does well on what it has not seen: hold some out and log its loss.",
        "Si el modelo acierta con lo que no ha visto: aparta una parte y registra su pérdida.",
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
    "report.unknown.updates_epochs": (
        "How many updates were made: the log counts epochs only.",
        "Cuántas actualizaciones se hicieron: el registro solo cuenta épocas.",
    ),
    "report.unknown.updates_examples": (
        "How many updates were made: the log counts examples only.",
        "Cuántas actualizaciones se hicieron: el registro solo cuenta ejemplos.",
    ),
    "report.unknown.updates_rows": (
        "How many updates were made: the log counts none. Here its rows with a training loss are "
        "counted, from 1; an evaluation has the number of the row before it.",
        "Cuántas actualizaciones se hicieron: el registro no las cuenta. Aquí se cuentan sus filas "
        "con pérdida de entrenamiento, desde la 1; una evaluación lleva el número de la fila "
        "anterior.",
    ),
    "report.unknown.steps_reckoned": (
        "At which update each row was written, in its own words: it is worked out here from the "
        "epochs and from the steps per second of the summary.",
        "En qué actualización se escribió cada fila, dicho por el propio registro: aquí se calcula "
        "con las épocas y con los pasos por segundo del resumen.",
    ),
    "report.unknown.perplexities": (
        "How its perplexities were worked out: they are read as e to the power of the loss, and "
        "the losses shown here are their natural logarithms.",
        "Cómo se calcularon sus perplejidades: se leen como e elevado a la pérdida, y las pérdidas "
        "que aquí se muestran son sus logaritmos naturales.",
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
        "Whether the samples are copied from the training text: a run compares them at its end.",
        "Si las muestras están copiadas del texto de entrenamiento: se comparan al terminar.",
    ),
    "report.unknown.learning_rate": (
        "How the learning rate went: the log does not name it.",
        "Cómo fue la tasa de aprendizaje: el registro no la indica.",
    ),
    "report.unknown.grad_norm": (
        "How steady the updates were: log the gradient norm.",
        "Lo estables que fueron los pasos: registra la norma del gradiente.",
    ),
    "report.unknown.epochs": (
        "How often the same data was seen: log the epoch.",
        "Cuántas veces se vieron los mismos datos: registra la época.",
    ),
    "report.unknown.labels": (
        "Whether the answers it was trained on are right: a loss falls on wrong ones too.",
        "Si las respuestas con las que entrenó son correctas: la pérdida también baja con las "
        "equivocadas.",
    ),
    "report.unknown.other_runs": (
        "How the other runs in this file went: only the first is read.",
        "Cómo fueron las otras ejecuciones de este archivo: solo se lee la primera.",
    ),
    "report.unknown.other_files": (
        "What the other event files of this folder hold, of this run or of others: one file is "
        "read.",
        "Qué contienen los otros archivos de eventos de esta carpeta, de esta ejecución o de "
        "otras: solo se lee uno.",
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
    "report.id.ended_worse": ("Ended worse than its best", "Terminó peor que su mejor momento"),
    "report.id.best_step": ("Best step", "Mejor paso"),
    "report.id.could_have_stopped": ("Could have stopped earlier", "Pudo parar antes"),
    "report.id.still_improving": ("Still improving", "Aún mejoraba"),
    "report.id.no_validation": ("No validation loss", "Sin pérdida de validación"),
    "report.id.validation_doubtful": ("Doubtful validation set", "Validación dudosa"),
    "report.id.validation_unmoved": ("Validation did not move", "La validación no se movió"),
    "report.id.training_flat": ("The loss did not fall", "La pérdida no bajó"),
    "report.id.other_set_rose": ("Another held-out set", "Otro conjunto apartado"),
    "report.id.reward_fell": ("The reward", "La recompensa"),
    "report.id.memorisation_risk": ("Risk of memorising", "Riesgo de memorización"),
    "report.id.worse_than_base": ("No better than before", "No mejor que antes"),
    "report.id.loss_spike": ("Spikes in the loss", "Picos en la pérdida"),
    "report.id.plateau": ("Plateau", "Meseta"),
    "report.id.gradient_spike": ("Spikes in the gradient", "Picos en el gradiente"),
    "report.id.learning_rate_zero": ("Learning rate zero", "Tasa de aprendizaje cero"),
    "report.id.learning_rate_too_high": (
        "Learning rate too high",
        "Tasa de aprendizaje demasiado alta",
    ),
    "report.id.schedule": ("Learning rate", "Tasa de aprendizaje"),
    "report.id.data_repeated": ("Data repeated", "Datos repetidos"),
    "report.id.abnormal_start_loss": ("Strange loss", "Pérdida extraña"),
    "report.id.losses_not_comparable": ("Losses not comparable", "Pérdidas no comparables"),
    "report.id.metric_disagrees_with_loss": (
        "Metric and loss disagree",
        "La métrica y la pérdida discrepan",
    ),
    "report.id.not_a_loss_objective": ("Not a prediction loss", "No es una pérdida de predicción"),
    "report.id.mean_is_not_last_loss": (
        "The mean is not the last loss",
        "La media no es la última pérdida",
    ),
    "report.id.log_incomplete": ("Incomplete log", "Registro incompleto"),
    "report.id.log_inconsistent": ("Figures that do not agree", "Cifras que no concuerdan"),
    "report.id.resumed_run": ("Resumed run", "Ejecución reanudada"),
    "report.id.epoch_staircase": ("Stairs at each pass", "Escalones en cada pasada"),
    "report.id.throughput": ("Speed", "Velocidad"),
    "report.id.ngram_yardstick": ("What it learned, by counting", "Lo aprendido, contando"),
    "report.id.copied_text": ("Text copied from the data", "Texto copiado de los datos"),
    "report.id.forecast": ("Forecast and outcome", "Lo previsto y lo ocurrido"),
    "report.id.memory": ("Memory", "Memoria"),
    "report.severity.info": ("note", "nota"),
    "report.severity.warning": ("warning", "aviso"),
    "report.severity.problem": ("problem", "problema"),
    "report.findings": ("Findings", "Hallazgos"),
    "report.evidence": ("Evidence", "Pruebas"),
    "report.evidence.row": ("Row of the log", "Fila del registro"),
    "report.evidence.field": ("Field", "Campo"),
    "report.evidence.value": ("Value", "Valor"),
    "report.numbers": ("Exact numbers", "Números exactos"),
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
    "report.stage.improvement": ("Share of the improvement", "Parte de la mejora"),
    "report.stage.how.train_loss": (
        "Improvement: the fall of the training loss from the first logged value to the lowest. The "
        "fast stage ends where nine tenths of it are done, the refinement where all but a "
        "hundredth is, or what the noise of the rows hides.",
        "Mejora: lo que bajó la pérdida de entrenamiento desde el primer valor registrado hasta el "
        "menor. La etapa rápida acaba cuando se han hecho nueve décimas partes; el refinamiento, "
        "cuando solo falta una centésima, o lo que el ruido de las filas oculta.",
    ),
    "report.stage.how.train_loss_rows": (
        "Improvement: the fall of the training loss from its first value to its lowest, as a "
        "centred running median of {width:n} rows. The fast stage ends where nine tenths "
        "of it are done, the refinement where all but a hundredth is, or what the noise of the "
        "rows hides. A smoothed curve that lags, as many tools draw it, gives later stages more.",
        "Mejora: lo que bajó la pérdida de entrenamiento desde su primer valor hasta el menor, "
        "como mediana móvil centrada de {width:n} filas. La etapa rápida acaba cuando se han hecho "
        "nueve décimas partes; el refinamiento, cuando solo falta una centésima, o lo que el ruido "
        "de las filas oculta. Una curva suavizada con retraso, como la que dibujan muchos "
        "programas, da más a las etapas posteriores.",
    ),
    "report.stage.how.val_loss": (
        "Improvement: the fall of the validation loss from its first value to the lowest. The fast "
        "stage ends where nine tenths of it are done, the refinement where all but a hundredth is, "
        "or what the noise of the evaluations hides.",
        "Mejora: lo que bajó la pérdida de validación desde su primer valor hasta el menor. La "
        "etapa rápida acaba cuando se han hecho nueve décimas partes; el refinamiento, cuando solo "
        "falta una centésima, o lo que el ruido de las evaluaciones oculta.",
    ),
    "report.stage.how.val_loss_rows": (
        "Improvement: the fall of the validation loss from its first value to the lowest, as a "
        "centred running median of {width:n} evaluations. The fast stage ends where nine tenths of "
        "it are done, the refinement where all but a hundredth is, or what the noise of the "
        "evaluations hides.",
        "Mejora: lo que bajó la pérdida de validación desde su primer valor hasta el menor, como "
        "mediana móvil centrada de {width:n} evaluaciones. La etapa rápida acaba cuando se han "
        "hecho nueve décimas partes; el refinamiento, cuando solo falta una centésima, o lo que el "
        "ruido de las evaluaciones oculta.",
    ),
    "report.stage.lost": (
        "A minus sign: improvement that was lost again in that stage.",
        "Signo menos: mejora que se volvió a perder en esa etapa.",
    ),
    "report.stage.time": ("Share of the time", "Parte del tiempo"),
    "report.fifths": (
        "How the training loss fell, by fifths of the run",
        "Cómo bajó la pérdida de entrenamiento, por quintos de la ejecución",
    ),
    "report.fifths.how": (
        "Part of the whole fall, from the first to the lowest loss, that was done by then; each "
        "fifth measured at the row nearest to its end.",
        "Parte de toda la bajada, de la primera pérdida a la menor, que ya estaba hecha; cada "
        "quinto, medido en la fila más cercana a su final.",
    ),
    "report.fifths.done": ("Fall done by then", "Bajada ya hecha"),
    "report.fifths.share": ("{value:pct1}", "{value:pct1}"),
    "report.fifths.part": ("Fifth", "Quinto"),
    "report.fifths.epochs": ("Epoch at its end", "Época a su final"),
    "report.fifths.loss": ("Loss at its end", "Pérdida a su final"),
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
    "report.accuracy": ("Right answers in the exam (%)", "Aciertos en el examen (%)"),
    "report.general_loss": (
        "Loss on a general text (nats per token)",
        "Pérdida en un texto general (nats por token)",
    ),
    "report.exam.kinds": ("By kind of question", "Por tipo de pregunta"),
    "report.exam.step": ("Step", "Paso"),
    "report.exam.right": ("Right", "Aciertos"),
    "report.exam.interval": ("95% interval", "Intervalo del 95\u00a0%"),
    "report.exam.lost": ("Lost", "Perdidos"),
    "report.exam.gained": ("Gained", "Ganados"),
    "report.exam.p_value": ("p", "p"),
    "report.exam.verdict": ("Against the base", "Frente al modelo base"),
    "report.exam.better": ("better", "mejor"),
    "report.exam.no_different": ("no different", "sin diferencia"),
    "report.exam.worse": ("worse", "peor"),
    "report.exam.base": ("the base", "modelo base"),
    "report.exam.best": ("{step:n} (best/)", "{step:n} (best/)"),
    "report.exam.plain": ("{step:n}", "{step:n}"),
    "report.exam.marks": ("{right:n}/{total:n}", "{right:n}/{total:n}"),
    "report.exam.range": ("{low:pct1} to {high:pct1}", "{low:pct1} a {high:pct1}"),
    "report.exam.p": ("{value:p}", "{value:p}"),
    "report.exam.how": (
        "Lost: answers that were right before training and are wrong now; gained: the other way "
        "round. p: how often changes at least this uneven would come by chance alone, if training "
        "changed nothing for the better or the worse (exact McNemar test). Below 0.05 the verdict "
        "is better or worse; else the exam shows no difference, which does not prove that there "
        "is none.",
        "Perdidos: respuestas que eran correctas antes de entrenar y ahora no lo son; ganados: al "
        "revés. p: con qué frecuencia saldrían por puro azar cambios al menos así de desiguales, "
        "si entrenar no hubiera mejorado ni empeorado nada (prueba exacta de McNemar). Por debajo "
        "de 0,05 el veredicto es mejor o peor; si no, el examen no muestra diferencia, lo que no "
        "prueba que no la haya.",
    ),
    "report.exam.shown": (
        "Exams shown: {shown:n} of {total:n}.",
        "Exámenes mostrados: {shown:n} de {total:n}.",
    ),
    "report.forgetting": ("Did it forget?", "¿Ha olvidado?"),
    "report.forgetting.rose": (
        "The loss on a small general text, which has nothing to do with the training, rose from "
        "{first:loss} (step {first_step:n}) to {last:loss} (step {last_step:n}), by {change:x} "
        "nats per token: the model has grown worse at ordinary text. Training less, a lower "
        "learning rate or some general text among the training data hold that back.",
        "La pérdida en un pequeño texto general, ajeno al entrenamiento, subió de {first:loss} "
        "(paso {first_step:n}) a {last:loss} (paso {last_step:n}), {change:x} nats por token: "
        "el modelo ha empeorado con el texto corriente. Lo frenan entrenar menos, una tasa de "
        "aprendizaje menor o algo de texto general entre los datos.",
    ),
    "report.forgetting.fell": (
        "The loss on a small general text, which has nothing to do with the training, fell from "
        "{first:loss} (step {first_step:n}) to {last:loss} (step {last_step:n}), by {change:x} "
        "nats per token: this text shows no forgetting.",
        "La pérdida en un pequeño texto general, ajeno al entrenamiento, bajó de {first:loss} "
        "(paso {first_step:n}) a {last:loss} (paso {last_step:n}), {change:x} nats por token: "
        "este texto no muestra olvido.",
    ),
    "report.forgetting.still": (
        "The loss on a small general text, which has nothing to do with the training, went from "
        "{first:loss} (step {first_step:n}) to {last:loss} (step {last_step:n}). That is a change "
        "of less than {judged:x} nats per token, too little to judge with so short a text.",
        "La pérdida en un pequeño texto general, ajeno al entrenamiento, pasó de {first:loss} "
        "(paso {first_step:n}) a {last:loss} (paso {last_step:n}). Es un cambio de menos de "
        "{judged:x} nats por token, demasiado poco para juzgarlo con un texto tan corto.",
    ),
    "report.forgetting.kept": (
        "In best/ (step {kept_step:n}) it is {kept_loss:loss}.",
        "En best/ (paso {kept_step:n}) es de {kept_loss:loss}.",
    ),
    "report.ledger": ("Where every token went", "A dónde ha ido cada token"),
    "report.ledger.damaged": (
        "ledger.json stands beside the log, but it is damaged or of another kind (at: {place}), "
        "and is left out here.",
        "Junto al registro hay un ledger.json, pero está dañado o es de otra clase (en: {place}), "
        "y aquí se deja fuera.",
    ),
    "report.ledger.count": ("{value:n}", "{value:n}"),
    "report.ledger.left_out": ("… {n:n} more tokens", "… {n:n} tokens más"),
    "report.ledger.shown": (
        "Sources shown: {shown:n} of {total:n}.",
        "Fuentes mostradas: {shown:n} de {total:n}.",
    ),
    "report.facts": ("Figures of the run", "Cifras de la ejecución"),
    "report.fact": ("Figure", "Cifra"),
    "report.value": ("Value", "Valor"),
    "report.not_known": ("not in this log", "no está en el registro"),
    "report.fact.steps": ("Steps (updates)", "Pasos (actualizaciones)"),
    "report.fact.epochs": ("Epochs (passes over the data)", "Épocas (pasadas por los datos)"),
    "report.fact.examples": ("Training examples", "Ejemplos de entrenamiento"),
    "report.fact.hours": ("Time", "Tiempo"),
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
    "report.time_value": ("{value:hours}", "{value:hours}"),
    "report.loss_value": ("{value:loss}", "{value:loss}"),
    "report.share": ("{value:pct}", "{value:pct}"),
    "report.settings": ("Settings at the start", "Datos del comienzo"),
    "report.recipe": ("Recipe", "Receta"),
    "report.glossary": ("Words used here", "Palabras usadas aquí"),
    "report.term.loss": (
        "Loss: how surprised the model was by the right next token, on average. 0 is no surprise "
        "at all; e to its power is the perplexity.",
        "Pérdida: lo que sorprendió al modelo, de media, el siguiente token correcto. 0 es ninguna "
        "sorpresa; e elevado a ella es la perplejidad.",
    ),
    "report.term.validation": (
        "Validation: text that was held out of training, to see what the model does with text it "
        "has not seen.",
        "Validación: texto apartado del entrenamiento para ver qué hace el modelo con lo que no ha "
        "visto.",
    ),
    "report.term.overfitting": (
        "Overfitting: the model goes on getting better on its training text and worse on all else.",
        "Sobreajuste: el modelo sigue mejorando con su texto de entrenamiento y empeora con todo "
        "lo demás.",
    ),
    "report.term.step": (
        "Step: one update of the model's weights. Epoch: one pass over all the training data.",
        "Paso: una actualización de los pesos del modelo. Época: una pasada por todos los datos de "
        "entrenamiento.",
    ),
    "report.term.learning_rate": (
        "Learning rate: how far a step moves the weights. Warm-up: the first steps, in which it "
        "rises.",
        "Tasa de aprendizaje: cuánto mueve los pesos cada paso. Calentamiento: los primeros pasos, "
        "en los que sube.",
    ),
    "report.term.grad_norm": (
        "Gradient norm: how strongly a batch of examples pulls at the weights.",
        "Norma del gradiente: la fuerza con la que un lote de ejemplos tira de los pesos.",
    ),
    "report.term.perplexity": (
        "Perplexity: among how many equally likely tokens the model wavers, on average. 1 is no "
        "doubt at all.",
        "Perplejidad: entre cuántos tokens igual de probables duda el modelo, de media. 1 es "
        "ninguna duda.",
    ),
    "report.term.plateau": (
        "Plateau: the stretch in which the loss hardly moves any more.",
        "Meseta: el tramo en el que la pérdida ya apenas se mueve.",
    ),
    "report.term.memorise": (
        "Memorising: giving back the training examples by heart, without being able to answer "
        "anything new.",
        "Memorizar: devolver de memoria los ejemplos de entrenamiento sin saber responder a nada "
        "nuevo.",
    ),
    "report.term.median": (
        "Median: the value in the middle; half of the others lie above it. A running median takes "
        "it over neighbouring rows, so that one odd batch does not count.",
        "Mediana: el valor de en medio; la mitad de los demás queda por encima. La mediana móvil "
        "la toma entre filas vecinas, para que un lote raro no cuente.",
    ),
    "report.term.scientific": (
        "Figures with an e: the number after it says how many places the decimal point moves; "
        "2e-04 is 0.0002.",
        "Cifras con una e: el número que la sigue dice cuántos lugares se mueve la coma; 2e-04 "
        "es 0,0002.",
    ),
    "report.term.early_stopping": (
        "Early stopping: the run ends by itself once the validation loss no longer falls.",
        "Parada temprana: la ejecución termina sola cuando la pérdida de validación deja de bajar.",
    ),
    "report.term.checkpoint": (
        "Checkpoint: the model as it was at one step, kept on disk.",
        "Punto de control: el modelo tal como era en un paso, guardado en el disco.",
    ),
    "report.term.token": (
        "Token: the piece of text that the model reads and writes at a time, a word or less.",
        "Token: el trozo de texto que el modelo lee y escribe de una vez, una palabra o menos.",
    ),
    "report.term.noise": (
        "Noise: the chance differences between batches or evaluations, measured here from the log "
        "itself. What is smaller than it is not claimed.",
        "Ruido: las diferencias debidas al azar entre lotes o evaluaciones, medidas aquí en el "
        "propio registro. Lo que es menor que él no se afirma.",
    ),
    "report.live.on": ("The run goes on", "La ejecución sigue en marcha"),
    "report.live.ended": ("The run has ended", "La ejecución ha terminado"),
    "report.live.rows": ("rows", "filas"),
    "report.live.fault": ("The log cannot be read now:", "El registro no se puede leer ahora:"),
    "report.live.gone": (
        "No answer any more: the program that shows this page was stopped.",
        "Ya no hay respuesta: se detuvo el programa que muestra esta página.",
    ),
    "report.source": ("Source", "Fuente"),
    "report.source.text": (
        "{path} · format: {format} · rows: {rows:n} · SHA-256: {sha256}",
        "{path} · formato: {format} · filas: {rows:n} · SHA-256: {sha256}",
    ),
}

KNOWN = {
    1: ("how often each token occurs", "con qué frecuencia aparece cada token"),
    2: ("which token follows which", "qué token sigue a cuál"),
    3: ("which token follows each two", "qué token sigue a cada dos"),
    4: ("which token follows each three", "qué token sigue a cada tres"),
    5: ("which token follows each four", "qué token sigue a cada cuatro"),
}
"""What an n-gram model of each order knows, as it stands in a sentence."""

for _order, (_en, _es) in KNOWN.items():
    _loss, _step = f"{{loss_{_order}:loss}}", f"{{step_{_order}:n}}"
    WORDS[f"report.ngram_{_order}"] = (
        f"counts of {_order} in a row",
        f"recuento de {_order} seguidos",
    )
    WORDS[f"report.ngram_yardstick.from_{_order}"] = (
        f"From step {_step} it predicts better than knowing {_en} would ({_loss}).",
        f"Desde el paso {_step} predice mejor que sabiendo {_es} ({_loss}).",
    )
    WORDS[f"report.ngram_yardstick.at_once_{_order}"] = (
        f"At its first evaluation, step {_step}, it already predicts better than knowing {_en} "
        f"would ({_loss}).",
        f"En su primera evaluación, paso {_step}, ya predice mejor que sabiendo {_es} ({_loss}).",
    )
    WORDS[f"report.ngram_yardstick.not_yet_{_order}"] = (
        f"It never predicted better than knowing {_en} would ({_loss}; its lowest validation loss "
        "is {best:loss}, at step {best_step:n}).",
        f"Nunca predijo mejor que sabiendo {_es} ({_loss}; su pérdida de validación más baja es "
        "{best:loss}, en el paso {best_step:n}).",
    )
TERMS: dict[str, tuple[str, str]] = {
    "validation": (r"validation loss(?:es)?|held out", r"pérdidas? de validación|apartad[oa]s?"),
    "learning_rate": (r"learning rate|warm-up", r"tasa de aprendizaje|calentamiento"),
    "grad_norm": (r"gradient norm", r"norma del gradiente"),
    "loss": (r"loss(?:es)?", r"pérdidas?"),
    "overfitting": (r"overfit(?:ted|ting)", r"sobreajust\w+"),
    "step": (r"steps?|epochs?", r"pasos?|épocas?"),
    "perplexity": (r"perplexity", r"perplejidad"),
    "plateau": (r"plateau", r"meseta"),
    "memorise": (r"memoris\w+|by heart", r"memoriza\w*|de memoria"),
    "median": (r"(?:running )?medians?", r"medianas?(?: móvil)?"),
    "scientific": (r"\d[.,]\de[-+]\d+", r"\d[.,]\de[-+]\d+"),
    "early_stopping": (r"early stopping", r"parada temprana"),
    "checkpoint": (r"checkpoints?", r"puntos? de control"),
    "token": (r"tokens?", r"tokens?"),
    "noise": (r"noise", r"ruido"),
}
"""`report.term.KEY` → the words that it explains, as regular expressions in each language."""

FORMS = {
    "constant": ("constant", "constante"),
    "linear": ("a straight line down", "bajada en línea recta"),
    "cosine": ("a cosine", "un coseno"),
    "polynomial": ("a parabola down", "bajada en parábola"),
    "inverse_sqrt": ("the inverse square root of the step", "la inversa de la raíz del paso"),
    "exponential": ("exponential decay", "decaimiento exponencial"),
    "decay_at_end": ("constant, then decay at the end", "constante, con decaimiento al final"),
    "steps": ("constant in steps", "constante a escalones"),
    "other": ("of no form that this report knows", "de ninguna forma que este informe conozca"),
}
"""The forms of a schedule, as they stand in a sentence."""

for _form, (_en, _es) in FORMS.items():
    WORDS[f"report.schedule.{_form}"] = (
        f"Learning rate: {_en}; peak {{peak:sci}}, {{end:sci}} at step {{last_step:n}}, no warm-up "
        "to be seen.",
        f"Tasa de aprendizaje: {_es}; máximo {{peak:sci}}, {{end:sci}} en el paso {{last_step:n}}, "
        "sin calentamiento visible.",
    )
    WORDS[f"report.schedule.warm_{_form}"] = (
        f"Learning rate: warm-up to {{peak:sci}}, reached at step {{warmup_steps:n}}, then {_en}; "
        "{end:sci} at step {last_step:n}.",
        f"Tasa de aprendizaje: calentamiento hasta {{peak:sci}}, que alcanza en el paso "
        f"{{warmup_steps:n}}, y después {_es}; {{end:sci}} en el paso {{last_step:n}}.",
    )


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
        if kind == "loss":  # 2.696, 0.0570, 0.000120, 3.1e-07: never a false 0; 134.21, 80,032
            if 0 < abs(v) < 1e-4 or abs(v) >= 1e7:
                return scientific(v, lang)
            if abs(v) >= 100:
                return number(v, lang, 2 if abs(v) < 1000 else 1 if abs(v) < 10_000 else 0)
            return number(v, lang, 3 if abs(v) >= 1 else 4 if abs(v) >= 0.01 or not v else 6)
        if kind == "hours":  # 32.56 h, 14 s
            return f"{number(v, lang, 2)} h" if v >= 1 else duration(3600 * v)
        if kind == "x":  # 250, 37.50, 0.30, 0.0012
            if 0 < abs(v) < 0.01:
                return number(v, lang, 1 - math.floor(math.log10(abs(v))))
            return number(v, lang, 0 if float(v).is_integer() or abs(v) >= 1000 else 2)
        if kind == "sci":
            return scientific(v, lang) if v else number(0, lang)
        if kind == "rate":
            return number(v, lang, 3)
        if kind == "time":
            return duration(v)
        if kind == "p":  # 0.375, 0.0496, 9.8e-06: never a false 0, nor a false 0.05
            places = 3 if v >= 0.1 else 4
            return number(v, lang, places) if v >= 0.001 else scientific(v, lang)
        if kind == "pct1":
            return percent(v, lang, 1)
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


COUNTED = {
    "epochs": (("epoch", "epochs"), ("época", "épocas")),
    "examples": (("example", "examples"), ("ejemplo", "ejemplos")),
    "rows": (("row", "rows"), ("fila", "filas")),
}
"""What a log counts that has no steps → its words, one and many, in each language."""

FEMININE = {"el": "la", "del": "de la", "al": "a la", "un": "una", "los": "las", "ese": "esa"}
FEMININE |= {"este": "esta", "esos": "esas", "estos": "estas", "primer": "primera"}
FEMININE |= {"primeros": "primeras", "último": "última", "últimos": "últimas"}
STEP = {
    "en": re.compile(r"\b(?P<before>a +)?(?P<step>steps?)\b(?P<number> \d)?", re.IGNORECASE),
    "es": re.compile(
        rf"\b(?P<before>(?:(?:{'|'.join(FEMININE)}) +)*)(?P<step>pasos?)\b(?P<number> \d)?",
        re.IGNORECASE,
    ),
}


def counted_in(text: dict[str, str], counted: str, numbered: bool = False) -> dict[str, str]:
    """A sentence about steps as one about what the log counts: epochs, examples or rows.

    Args:
        text: the sentence in each language.
        counted: a key of COUNTED; empty where the log counts steps.
        numbered: leave steps in general alone, as advice means them: "step 12", not "fewer steps".
    """
    if not counted:
        return text

    def changed(found: re.Match[str], lang: str) -> str:
        if numbered and not found["number"]:
            return found[0]
        one, many = COUNTED[counted][LANGUAGES.index(lang)]
        before, step = found["before"] or "", found["step"]
        word = many if step.lower().endswith("s") else one
        word = word.capitalize() if step[0].isupper() else word
        if lang == "en" and before and word[0] in "aeiou":
            before = "an "
        elif lang == "es" and word.endswith(("a", "as")):
            shown = [
                FEMININE[w.lower()].capitalize() if w[0].isupper() else FEMININE[w]
                for w in before.split()
            ]
            before = " ".join([*shown, ""])
        return before + word + (found["number"] or "")

    if counted != "epochs":  # An epoch may be the best one; a row or an example is none.
        text = {
            "en": text["en"].replace("Best step: ", "Best: step ").replace("Best step", "Best"),
            "es": text["es"]
            .replace("Mejor paso: ", "Lo mejor: paso ")
            .replace("Mejor paso", "Lo mejor"),
        }
    return {lang: STEP[lang].sub(partial(changed, lang=lang), one) for lang, one in text.items()}
