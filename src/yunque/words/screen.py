"""Sentences of the screen room."""

WORDS: dict[str, tuple[str, str]] = {
    # The live panel: labels stand in a column, so they are short.
    "screen.step": ("step {step}/{steps}", "paso {step}/{steps}"),
    "screen.epoch": ("epoch {epoch}", "época {epoch}"),
    "screen.train_loss": ("training loss", "pérdida (entren.)"),
    "screen.smooth_last": ("{smooth} (last {last})", "{smooth} (última {last})"),
    "screen.val_loss": ("validation loss", "pérdida (valid.)"),
    "screen.best": ("best validation", "mejor validación"),
    "screen.best_at": ("{loss} (step {step})", "{loss} (paso {step})"),
    "screen.perplexity": ("perplexity", "perplejidad"),
    "screen.learning_rate": ("learning rate", "tasa de aprend."),
    "screen.grad_norm": ("gradient norm", "norma gradiente"),
    "screen.speed": ("tokens/s", "tokens/s"),
    "screen.memory": ("memory", "memoria"),
    "screen.elapsed": ("elapsed", "transcurrido"),
    "screen.left": ("time left", "tiempo restante"),
    "screen.curve": ("loss", "pérdida"),
    "screen.curve_train": ("training", "entrenamiento"),
    "screen.curve_val": ("validation", "validación"),
    "screen.sample": ("sample at step {step}", "muestra en el paso {step}"),
    "screen.exam": ("exam {right}/{total} ({share})", "examen {right}/{total} ({share})"),
    "screen.parameters": ("{n} parameters", "{n} parámetros"),
    # The parts of a model, as `Decoder.parameter_counts` names them.
    "screen.part_token_embedding": ("token embedding", "embedding de tokens"),
    "screen.part_position_embedding": ("positions", "posiciones"),
    "screen.part_attention": ("attention", "atención"),
    "screen.part_mlp": ("feed-forward", "feed-forward"),
    "screen.part_norms": ("norms", "normas"),
    "screen.part_head": ("head", "salida"),
    "screen.part_layers": ("layers", "capas"),
    "screen.part_base": ("base", "base"),
    "screen.part_adapter": ("adapter", "adaptador"),
    "screen.part_trained": ("trained", "entrenados"),
    "screen.tokens": (
        "{train} training tokens, {val} validation",
        "{train} tokens de entrenamiento, {val} de validación",
    ),
    "screen.train_tokens": ("{train} training tokens", "{train} tokens de entrenamiento"),
    "screen.steps": ("{n} steps", "{n} pasos"),
    "screen.batch": ("batch {n}", "lote {n}"),
    "screen.context": ("context {n}", "contexto {n}"),
    # One line at a time, where there is no terminal.
    "screen.line_step": (
        "step {step}/{steps} epoch {epoch} loss {loss} lr {lr} grad {grad} "
        "{speed} tokens/s {memory} left {left}",
        "paso {step}/{steps} época {epoch} pérdida {loss} tasa {lr} grad {grad} "
        "{speed} tokens/s {memory} faltan {left}",
    ),
    "screen.line_eval": (
        "eval step {step}: train {train} validation {val}{best} perplexity {perplexity}",
        "evaluación paso {step}: entrenamiento {train} validación {val}{best} "
        "perplejidad {perplexity}",
    ),
    "screen.line_eval_train": (
        "eval step {step}: train {train}{best} perplexity {perplexity}",
        "evaluación paso {step}: entrenamiento {train}{best} perplejidad {perplexity}",
    ),
    "screen.line_best": (" (best)", " (la mejor)"),
    "screen.line_start": ("run {run}", "ejecución {run}"),
    "screen.line_sample": (
        'sample after "{prompt}": {text}',
        "muestra tras «{prompt}»: {text}",
    ),
    "screen.line_exam": (
        "exam step {step}: {right}/{total} ({share})",
        "examen paso {step}: {right}/{total} ({share})",
    ),
    "screen.line_warning": ("warning: {text}", "aviso: {text}"),
    "screen.line_checkpoint": ("checkpoint {path}", "punto de control {path}"),
    # Why a run ended.
    "screen.stop": ("Stopped: {reason}.", "Fin: {reason}."),
    "screen.reason_steps": ("all steps done", "todos los pasos hechos"),
    "screen.reason_early_stopping": (
        "the validation loss no longer improves",
        "la pérdida de validación ya no mejora",
    ),
    "screen.reason_interrupted": (
        "interrupted, the state is saved",
        "interrumpida, con el estado guardado",
    ),
    "screen.reason_non_finite": ("the loss is no longer finite", "la pérdida ya no es finita"),
    "screen.reason_spikes": (
        "one spike after another in the loss or the gradient",
        "un pico tras otro en la pérdida o el gradiente",
    ),
    "screen.stop_best": (
        "Best validation loss {loss} at step {step}.",
        "Mejor pérdida de validación: {loss}, en el paso {step}.",
    ),
    "screen.stop_best_train": (
        "Best training loss {loss} at step {step}.",
        "Mejor pérdida de entrenamiento: {loss}, en el paso {step}.",
    ),
    "screen.stop_run": ("Run folder: {run}", "Carpeta de la ejecución: {run}"),
}
