"""Sentences of the forecast."""

WORDS: dict[str, tuple[str, str]] = {
    "plan.calibrating": (
        "Measuring this machine, once ({done:,} of {all:,})",
        "Midiendo esta máquina, una sola vez ({done:,} de {all:,})",
    ),
    "plan.job_pretrain": (
        "Pretraining of {parameters:,} parameters: {steps:,} updates of {rows:,} rows of "
        "{length:,} tokens",
        "Preentrenamiento de {parameters:,} parámetros: {steps:,} actualizaciones de {rows:,} "
        "filas de {length:,} tokens",
    ),
    "plan.job_full": (
        "Full fine-tuning of {parameters:,} parameters: {steps:,} updates of {rows:,} rows of "
        "{length:,} tokens",
        "Ajuste completo de {parameters:,} parámetros: {steps:,} actualizaciones de {rows:,} filas "
        "de {length:,} tokens",
    ),
    "plan.job_lora": (
        "LoRA beside {parameters:,} frozen parameters: {steps:,} updates of {rows:,} rows of "
        "{length:,} tokens",
        "LoRA junto a {parameters:,} parámetros congelados: {steps:,} actualizaciones de {rows:,} "
        "filas de {length:,} tokens",
    ),
    "plan.job_qlora": (
        "QLoRA beside {parameters:,} frozen parameters in {bits} bits: {steps:,} updates of "
        "{rows:,} rows of {length:,} tokens",
        "QLoRA junto a {parameters:,} parámetros congelados en {bits} bits: {steps:,} "
        "actualizaciones de {rows:,} filas de {length:,} tokens",
    ),
    "plan.fits": (
        "It fits: about {peak} of {memory} at its peak (likely between {low} and {high}).",
        "Cabe: unos {peak} de {memory} en el momento de más uso (lo probable: entre {low} y "
        "{high}).",
    ),
    "plan.tight": (
        "It may just fit: about {peak} of {memory}, but it could be as much as {high}.",
        "Puede que quepa por poco: unos {peak} de {memory}, pero podrían ser hasta {high}.",
    ),
    "plan.too_large": (
        "It does not fit into {memory}: about {peak} (likely between {low} and {high}).",
        "No cabe en {memory}: unos {peak} (lo probable: entre {low} y {high}).",
    ),
    "plan.unlikely": (
        "It probably does not fit into {memory}: about {peak} (likely between {low} and {high}).",
        "Lo más probable es que no quepa en {memory}: unos {peak} (entre {low} y {high}).",
    ),
    "plan.memory_unknown": (
        "About {peak} at its peak (likely between {low} and {high}); how much memory there is, "
        "the system does not say.",
        "Unos {peak} en el momento de más uso (lo probable: entre {low} y {high}); el sistema no "
        "dice cuánta memoria hay.",
    ),
    "plan.time": (
        "Time: {whole} (likely between {low} and {high}): {update} an update, {evaluations:,} "
        "{evaluations:|evaluation|evaluations} of {evaluation} each.",
        "Tiempo: {whole} (lo probable: entre {low} y {high}): {update} por actualización y "
        "{evaluations:,} {evaluations:|evaluación|evaluaciones} de {evaluation}.",
    ),
    "plan.early_stopping": (
        "Early stopping may end it sooner.",
        "La parada temprana puede acortarlo.",
    ),
    "plan.disk": (
        "Disk: {disk}. Electricity: about {energy} kWh (likely between {low} and {high}).",
        "Disco: {disk}. Electricidad: unos {energy} kWh (lo probable: entre {low} y {high}).",
    ),
    "plan.guess": (
        "These are guesses: {machine} is known by its published figures only.",
        "Son conjeturas: de {machine} solo se conocen los datos publicados.",
    ),
    "plan.measured_first": (
        "Rates measured on {machine}; no past runs there yet that correct them.",
        "Velocidades medidas en {machine}; aún sin entrenamientos anteriores que las corrijan.",
    ),
    "plan.measured": (
        "Rates measured on {machine}; corrected by {outcomes:,} {outcomes:|past run|past runs}.",
        "Velocidades medidas en {machine}; corregidas con {outcomes:,} "
        "{outcomes:|entrenamiento anterior|entrenamientos anteriores}.",
    ),
    "plan.unsteady": (
        "Other programs were busy during the measurement (a repeat usually took {excess} % longer "
        "than the shortest): the times are less certain, and the next `yunque plan` measures "
        "again.",
        "Durante la medición había otros programas trabajando (una repetición solía tardar un "
        "{excess} % más que la más corta): los tiempos son menos seguros, y el próximo "
        "`yunque plan` volverá a medir.",
    ),
    "plan.guessed_data": (
        "The text was not counted: about {tokens:,} tokens by the size of the files.",
        "El texto no se ha contado: unos {tokens:,} tokens según el tamaño de los archivos.",
    ),
    "plan.unknown_data": (
        "How much text there is to train on is not known, nor how often it will be passed over. "
        "An evaluation is counted as {tokens:,} tokens of each set, the most that it reads: with "
        "little text it takes less. Name your files with `--sources`, and both are known.",
        "No se sabe cuánto texto hay ni, por tanto, cuántas pasadas se le darán. Cada evaluación "
        "se cuenta como {tokens:,} tokens de cada conjunto, lo más que lee: con poco texto tarda "
        "menos. Con los archivos en `--sources` se sabe lo uno y lo otro.",
    ),
    "plan.part_weights": ("weights", "pesos"),
    "plan.part_quantisation": (
        "scales of the quantised weights",
        "escalas de los pesos cuantizados",
    ),
    "plan.part_adapter": ("adapter", "adaptador"),
    "plan.part_gradients": ("gradients", "gradientes"),
    "plan.part_optimizer": ("optimizer", "optimizador"),
    "plan.part_average": ("average of the weights", "promedio de los pesos"),
    "plan.part_activations": ("activations", "activaciones"),
    "plan.part_logits": ("logits and the head's gradient", "logits y gradiente de la salida"),
    "plan.part_working": ("for a moment, inside a block", "por un momento, dentro de un bloque"),
    "plan.part_holes": ("holes in the heap", "huecos en la memoria dinámica"),
    "plan.part_base": ("the program itself", "el propio programa"),
    "plan.part_all": ("in all", "en total"),
    "plan.part_low": ("likely from", "lo probable: desde"),
    "plan.part_high": ("to", "hasta"),
    "plan.moment_training": ("training", "entrenar"),
    "plan.moment_evaluation": ("evaluating", "evaluar"),
    "plan.moment_generation": ("samples", "generar"),
    "plan.moment_saving": ("saving", "guardar"),
    "plan.table_parts": ("Memory in MB, at the peak of", "Memoria en MB, en el máximo de"),
    "plan.table_changes": (
        "What can be changed, each alone",
        "Qué se puede cambiar, cada cosa por separado",
    ),
    "plan.change_micro_batch": (
        "--micro-batch-size {rows}: the same update in smaller passes",
        "--micro-batch-size {rows}: la misma actualización en pasadas más pequeñas",
    ),
    "plan.change_checkpointing": (
        "--gradient-checkpointing: activations are computed once more",
        "--gradient-checkpointing: las activaciones se calculan otra vez",
    ),
    "plan.change_length": (
        "--max-length {length}: shorter rows (long documents are split)",
        "--max-length {length}: filas más cortas (los documentos largos se dividen)",
    ),
    "plan.change_optimizer_16": (
        "--optimizer adamw16bit: the optimizer's memory in 16 bits",
        "--optimizer adamw16bit: la memoria del optimizador en 16 bits",
    ),
    "plan.change_in_backward": (
        "--update-in-backward --clip-norm 0: each gradient is freed once used, without clipping",
        "--update-in-backward --clip-norm 0: cada gradiente se libera al usarlo, sin recortarlo",
    ),
    "plan.change_optimizer": (
        "--optimizer adamw8bit: the optimizer's memory in 8 bits",
        "--optimizer adamw8bit: la memoria del optimizador en 8 bits",
    ),
    "plan.change_lora": (
        "--method lora: the weights are frozen",
        "--method lora: los pesos quedan congelados",
    ),
    "plan.change_qlora": (
        "--method qlora: the frozen weights in 4 bits",
        "--method qlora: los pesos congelados, en 4 bits",
    ),
    "plan.change_quantize_head": (
        "--quantize-head: the output head in 4 bits too",
        "--quantize-head: también la capa de salida en 4 bits",
    ),
    "plan.change_cpu_embeddings": (
        "--cpu-embeddings: the input embedding in the computer's memory",
        "--cpu-embeddings: las representaciones de entrada, en la memoria del ordenador",
    ),
    "plan.effect": (
        "{gain} less ({memory}), {cost} time",
        "{gain} menos ({memory}), {cost} de tiempo",
    ),
    "plan.effect_enough": (
        "{gain} less ({memory}), {cost} time: with it alone it fits",
        "{gain} menos ({memory}), {cost} de tiempo: solo con esto cabe",
    ),
    "plan.remedy": (
        "With {changes} it fits: about {peak} of {memory} (likely {high} at most), {cost} time.",
        "Con {changes} cabe: unos {peak} de {memory} (lo probable: {high} como mucho), {cost} de "
        "tiempo.",
    ),
    "plan.remedy_none": (
        "None of this makes it fit, not even together: about {peak} would be left, and {memory} "
        "may be taken. It takes a smaller model or more memory.",
        "Nada de esto basta, ni siquiera junto: quedarían unos {peak}, y el límite son {memory}. "
        "Hace falta un modelo más pequeño o más memoria.",
    ),
    "plan.and": (" and ", " y "),
    "plan.largest_rows": (
        "Largest micro-batch that surely fits: {rows:,}.",
        "Mayor microlote que cabe con seguridad: {rows:,}.",
    ),
    "plan.largest_rows_all": (
        "The whole batch of {rows:,} {rows:|row|rows} fits at once.",
        "El lote entero, de {rows:,} {rows:|fila|filas}, cabe de una vez.",
    ),
    "plan.largest_rows_none": (
        "Not even one row of {length:,} tokens at a time is sure to fit.",
        "Ni siquiera es seguro que quepa una fila de {length:,} tokens cada vez.",
    ),
    "plan.largest_length": (
        "Longest row that surely fits at a micro-batch of {rows:,}: {length:,} tokens.",
        "Fila más larga que cabe con seguridad con un microlote de {rows:,}: {length:,} tokens.",
    ),
    "plan.largest_length_all": (
        "At a micro-batch of {rows:,}, rows of {length:,} tokens fit, all that the model can take.",
        "Con un microlote de {rows:,}, caben filas de {length:,} tokens, todo lo que admite el "
        "modelo.",
    ),
    "plan.largest_length_least": (
        "At a micro-batch of {rows:,}, rows of at least {length:,} tokens fit.",
        "Con un microlote de {rows:,}, caben filas de al menos {length:,} tokens.",
    ),
    "plan.largest_length_none": (
        "At a micro-batch of {rows:,}, not even rows of 16 tokens are sure to fit.",
        "Con un microlote de {rows:,}, ni siquiera es seguro que quepan filas de 16 tokens.",
    ),
    "plan.second_opinion": ("Before you start", "Antes de empezar"),
    "plan.no_doubts": (
        "Nothing in this recipe is out of the usual.",
        "Nada en esta receta se sale de lo habitual.",
    ),
    "plan.doubt_memorise": (
        "{passes:,.0f} passes over {documents:,} examples: that has been seen to learn the "
        "examples by heart and to make a model worse than its base. Two or three passes are usual "
        "(--epochs 3); hold an exam (--exam FILE).",
        "{passes:,.0f} pasadas sobre {documents:,} ejemplos: se ha visto que así se aprenden de "
        "memoria y el modelo queda peor que el de partida. Lo habitual son dos o tres pasadas "
        "(--epochs 3); prepara un examen (--exam ARCHIVO).",
    ),
    "plan.doubt_no_validation": (
        "Nothing is held out: the run will not be able to tell whether it learns or memorises. "
        "--val 0.1 holds a tenth out.",
        "No se reserva nada para validar: no se podrá saber si aprende o memoriza. --val 0.1 "
        "reserva una décima parte.",
    ),
    "plan.doubt_rate_high": (
        "A learning rate of {rate:g} lies above what is known to work here ({bound:g}).",
        "Una tasa de aprendizaje de {rate:g} supera lo que se sabe que funciona aquí ({bound:g}).",
    ),
    "plan.doubt_rate_low": (
        "A learning rate of {rate:g} is so small ({bound:g} and more is usual) that hardly "
        "anything will be learnt.",
        "Una tasa de aprendizaje de {rate:g} es tan pequeña (lo habitual es {bound:g} o más) que "
        "apenas se aprenderá nada.",
    ),
    "plan.doubt_passes_many": (
        "{passes:,.0f} passes over the text: after the fourth each gives less. More text would be "
        "worth more than more passes.",
        "{passes:,.0f} pasadas sobre el texto: desde la cuarta, cada una aporta menos. Más texto "
        "valdría más que más pasadas.",
    ),
    "plan.doubt_passes_worthless": (
        "{passes:,.0f} passes over the text: past about forty they give nothing. A smaller "
        "--steps or more text is better.",
        "{passes:,.0f} pasadas sobre el texto: pasadas unas cuarenta no aportan nada. Es mejor "
        "bajar --steps o añadir texto.",
    ),
    "plan.doubt_batch_small": (
        "{tokens:,} tokens an update are so few that the gradient is mostly noise: raise "
        "--batch-size (--micro-batch-size keeps the memory).",
        "{tokens:,} tokens por actualización son tan pocos que el gradiente es casi todo ruido: "
        "sube --batch-size (con --micro-batch-size la memoria no crece).",
    ),
    "plan.doubt_context_long": (
        "Rows of {context:,} tokens for documents of at most {longest:,}: a shorter --max-length "
        "costs nothing and saves time.",
        "Filas de {context:,} tokens para documentos de {longest:,} como mucho: un --max-length "
        "menor no cuesta nada y ahorra tiempo.",
    ),
    "plan.doubt_vocabulary_large": (
        "A vocabulary of {vocabulary:,} for {tokens:,} tokens of text: most of its rows are hardly "
        "met. A smaller one (--tokenizer {tokenizers}) learns more.",
        "Un vocabulario de {vocabulary:,} para {tokens:,} tokens de texto: la mayoría de sus "
        "entradas apenas aparecerán. Con uno menor (--tokenizer {tokenizers}) se aprende más.",
    ),
    "plan.doubt_vocabulary_unused": (
        "The model has rows for a vocabulary of {vocabulary:,}, and the tokenizer has about "
        "{entries:,} entries: the other rows are never met. --vocab-size 0 makes as many as are "
        "needed.",
        "El modelo tiene sitio para un vocabulario de {vocabulary:,} y el tokenizador tiene unas "
        "{entries:,} entradas: el resto no aparecerá nunca. Con --vocab-size 0 se ajusta al "
        "tokenizador.",
    ),
    "plan.doubt_vocabulary_met": (
        "A vocabulary of {vocabulary:,} for {tokens:,} tokens of text: most of its rows are hardly "
        "met. It takes more text.",
        "Un vocabulario de {vocabulary:,} para {tokens:,} tokens de texto: la mayoría de sus "
        "entradas apenas aparecerán. Hace falta más texto.",
    ),
    "plan.doubt_warmup_long": (
        "A warm-up of {warmup:,} of {steps:,} updates: more than half of the run is below the "
        "learning rate that was asked for.",
        "Un calentamiento de {warmup:,} de {steps:,} actualizaciones: más de la mitad transcurre "
        "por debajo de la tasa de aprendizaje pedida.",
    ),
    "plan.same_computation": (
        "By the scaling law of Hoffmann et al. 2022 the same computation is best spent on about "
        "{parameters:~} parameters and {tokens:~} tokens of new text (now: {now_parameters:~} and "
        "{now_tokens:~}).",
        "Según la ley de escala de Hoffmann et al. 2022, el mismo cálculo rinde más con unos "
        "{parameters:~} parámetros y {tokens:~} tokens de texto nuevo (ahora: {now_parameters:~} y "
        "{now_tokens:~}).",
    ),
    "plan.repeated": (
        "By Muennighoff et al. 2023 these {passes:,.0f} passes are worth about {worth:~} tokens of "
        "new text ({seen:,} are computed).",
        "Según Muennighoff et al. 2023, estas {passes:,.0f} pasadas valen como unos {worth:~} "
        "tokens de texto nuevo (se calculan {seen:,}).",
    ),
    "plan.repeated_fewer": (
        "A quarter of the computation, {fewer:,.0f} passes, is worth {worth_fewer:,}.",
        "Con la cuarta parte del cálculo, {fewer:,.0f} pasadas, valdrían {worth_fewer:,}.",
    ),
    "plan.repeated_range": (
        "That law was measured for 7 million to 9 billion parameters; here it is a rough guide.",
        "Esa ley se midió entre 7 millones y 9 mil millones de parámetros; aquí es una guía "
        "aproximada.",
    ),
    "plan.out_of_range": (
        "That law was measured from 44 million parameters on; here it is a rough guide.",
        "Esa ley se midió a partir de 44 millones de parámetros; aquí es una guía aproximada.",
    ),
    "plan.fit_memory": (
        "Memory: {need} GB by arithmetic, at most {most}, of {budget} GB (the largest: {parts}).",
        "Memoria: {need} GB según el cálculo, hasta {most}, de {budget} GB (lo mayor: {parts}).",
    ),
    "plan.fit_rows": (
        "To fit, {rows} {rows:|row is|rows are} computed at a time; an update still has {batch}.",
        "Para que quepa, se {rows:|calcula una fila|calculan varias filas} cada vez ({rows}); la "
        "actualización sigue teniendo {batch}.",
    ),
    "plan.fit_checkpointing": (
        "To fit, each block is computed once more on the way back (gradient checkpointing): about "
        "a third more time, the same numbers.",
        "Para que quepa, cada bloque se vuelve a calcular al retroceder (gradient checkpointing): "
        "cerca de un tercio más de tiempo y los mismos números.",
    ),
    "plan.fit_quantize_head": (
        "To fit, the output head is quantised too: the logits are rounded a little more.",
        "Para que quepa, también se cuantiza la capa de salida: los logits se redondean algo más.",
    ),
    "plan.fit_cpu_embeddings": (
        "To fit, the input embedding stays in the computer's own memory: a little slower.",
        "Para que quepa, los embeddings de entrada se quedan en la memoria del ordenador: algo más "
        "lento.",
    ),
    "plan.fit_length": (
        "To fit, rows have at most {length} tokens: longer conversations are cut into pieces.",
        "Para que quepa, las filas tienen como mucho {length} tokens: las conversaciones más "
        "largas se parten en trozos.",
    ),
    "plan.fit_none": (
        "Not even the smallest way to train it by this method is sure to fit into {budget} GB: "
        "{need} GB by arithmetic, at most {most} (the largest: {parts}).",
        "Ni la manera más pequeña de entrenarlo con este método cabe con seguridad en {budget} GB: "
        "{need} GB según el cálculo, {most} como mucho (lo mayor: {parts}).",
    ),
    "plan.before": (
        "Forecast: {time} ({low} to {high}), memory {peak} ({least} to {most}), disk {disk}.",
        "Previsión: {time} (de {low} a {high}), memoria {peak} (de {least} a {most}), disco "
        "{disk}.",
    ),
    "plan.before_untimed": (
        "Forecast: memory {peak} ({least} to {most}), disk {disk}. For the time, `yunque plan` "
        "measures this machine once.",
        "Previsión: memoria {peak} (de {least} a {most}), disco {disk}. Para el tiempo, `yunque "
        "plan` mide esta máquina una vez.",
    ),
    "plan.before_too_large": (
        "This run probably does not fit: about {peak}, and there are {memory}. `yunque plan` says "
        "what to change.",
        "Este entrenamiento probablemente no cabe: unos {peak}, y hay {memory}. `yunque plan` dice "
        "qué cambiar.",
    ),
}
