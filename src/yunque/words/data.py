"""Sentences of the data room."""

WORDS: dict[str, tuple[str, str]] = {
    "data.counting": ("Reading the text", "Leyendo el texto"),
    "data.training_tokenizer": ("Building the tokenizer", "Construyendo el tokenizador"),
    "data.encoding": ("Turning text into tokens", "Convirtiendo el texto en tokens"),
    "data.rebuilt_interrupted": (
        "The last preparation was interrupted; it is done again.",
        "La preparación anterior quedó a medias; se hace de nuevo.",
    ),
    "data.rebuilt_format": (
        "Prepared in format {old}, this version writes {new}; it is done again.",
        "Se preparó con el formato {old} y esta versión escribe el {new}; se hace de nuevo.",
    ),
    "data.rebuilt_damaged": (
        "The prepared files are incomplete or were changed; they are made again.",
        "Los archivos preparados están incompletos o han cambiado; se hacen de nuevo.",
    ),
    "data.rebuilt_setting": (
        "{name} changed from {old} to {new}; the data is prepared again.",
        "{name} ha pasado de {old} a {new}; los datos se preparan de nuevo.",
    ),
    "data.rebuilt_sources": (
        "New or changed text ({count}: {names}); the data is prepared again.",
        "Hay texto nuevo o modificado ({count}: {names}); los datos se preparan de nuevo.",
    ),
    "data.rebuilt_source_list": (
        "The list of sources changed ({old} files before, {new} now); the data is prepared again.",
        "Ha cambiado la lista de fuentes (antes {old} archivos, ahora {new}); "
        "los datos se preparan de nuevo.",
    ),
    "data.too_few_for_window": (
        "{tokens:,} training tokens, but one window needs {needed:,} (context_length "
        "{context_length} + 1). Add text, or give --context-length {fitting} (in fine-tuning "
        "--max-length) or less.",
        "Hay {tokens:,} tokens de entrenamiento y una sola ventana necesita {needed:,} "
        "(context_length {context_length} + 1). Añade texto o usa --context-length {fitting} (al "
        "afinar, --max-length) o menos.",
    ),
    "data.too_few_for_batch": (
        "{tokens:,} training tokens do not fill one batch of {batch_size} x {context_length} = "
        "{needed:,}: the same text comes more than once in an update. Add text, or give "
        "--batch-size {fitting} or less.",
        "Los {tokens:,} tokens de entrenamiento no llenan un lote de {batch_size} x "
        "{context_length} = {needed:,}: el mismo texto se repite dentro de una actualización. "
        "Añade texto o usa --batch-size {fitting} o menos.",
    ),
    "data.val_one_token": (
        "The validation set is a single token, so there is nothing to predict in it. Hold "
        "out more (--val 0.1 is usual), or nothing (--val 0).",
        "El conjunto de validación tiene un solo token, así que no hay nada que predecir en él. "
        "Reserva más (lo habitual es --val 0.1) o nada (--val 0).",
    ),
    "data.val_below_context": (
        "The validation set has {tokens:,} tokens, fewer than one window of {needed:,} "
        "(context_length {context_length} + 1): its loss will be rough, and measured on less "
        "context than in training. Raise --val (0.1 is usual), add text, or lower "
        "--context-length.",
        "El conjunto de validación tiene {tokens:,} tokens, menos que una ventana de {needed:,} "
        "(context_length {context_length} + 1): su pérdida será poco fiable y se medirá con menos "
        "contexto que en el entrenamiento. Sube --val (lo habitual es 0.1), añade texto o baja "
        "--context-length.",
    ),
    "data.vocabulary_large": (
        "The vocabulary has {vocab_size:,} entries and the training text {tokens:,} tokens, "
        "{per_entry:.1f} for each entry: most of them will hardly be learnt ({wanted} or more are "
        "better). Use a smaller vocabulary (--tokenizer char, byte or a smaller bpe:SIZE) or more "
        "text.",
        "El vocabulario tiene {vocab_size:,} entradas y el texto de entrenamiento {tokens:,} "
        "tokens, {per_entry:.1f} por entrada: la mayoría apenas se aprenderá (conviene que sean "
        "{wanted} o más). Usa un vocabulario menor (--tokenizer char, byte o un bpe:SIZE más "
        "pequeño) o más texto.",
    ),
    "data.unknown_many": (
        "{unknown:,} of {tokens:,} tokens ({percent:.1f} %) are unknown to the vocabulary: the "
        "model can neither read nor write that text. Use --tokenizer bpe:SIZE or byte, which know "
        "every text, or a larger vocabulary.",
        "El vocabulario no conoce {unknown:,} de los {tokens:,} tokens ({percent:.1f} %): el "
        "modelo no podrá leer ni escribir ese texto. Usa --tokenizer bpe:SIZE o byte, que conocen "
        "cualquier texto, o un vocabulario mayor.",
    ),
    "data.bad_records": (
        "{count:,} {count:|record was|records were} left out because {count:|it|they} could not be "
        "read ({percent:.1f} % of the bytes); the first: {first}",
        "{count:|Se ha|Se han} dejado fuera {count:,} {count:|registro|registros} que no "
        "{count:|se podía|se podían} leer ({percent:.1f} % de los bytes); el primero: {first}",
    ),
    "data.bad_lines": (
        "{count:,} {count:|line was|lines were} left out because {count:|it|they} could not be "
        "read ({percent:.1f} % of the bytes); the first: {first}",
        "{count:|Se ha|Se han} dejado fuera {count:,} {count:|línea|líneas} que no "
        "{count:|se podía|se podían} leer ({percent:.1f} % de los bytes); la primera: {first}",
    ),
    "data.no_loss": (
        "{total:|The one conversation|{count:,} of {total:,} conversations} {count:|holds|hold} no "
        "token that is to be learnt, "
        "at {places}: the assistant says nothing there. Mend or remove {count:|it|them}.",
        "{total:|La única conversación|{count:,} de {total:,} conversaciones} no "
        "{count:|tiene|tienen} ningún token que aprender, en {places}: ahí el asistente no dice "
        "nada. {count:|Corrígela o quítala|Corrígelas o quítalas}.",
    ),
    "data.end_without_loss": (
        "In none of the conversations ({count:,}) does the end of the answer carry loss: the model "
        "will not learn to stop. Use a chat template that ends the assistant's turn with an end "
        "token.",
        "En ninguna de las conversaciones ({count:,}) cuenta para la pérdida el final de la "
        "respuesta: el modelo no aprenderá a parar. Usa una plantilla que cierre el turno del "
        "asistente con un token de fin.",
    ),
    "data.lost_to_length": (
        "{lost:,} of {tokens:,} training tokens ({percent:.1f} %) are cut off by the length limit: "
        "answers lose their ends. Raise --max-length (in pretraining --context-length), or give "
        "--over-long split.",
        "El límite de longitud corta {lost:,} de los {tokens:,} tokens de entrenamiento "
        "({percent:.1f} %): hay respuestas que se quedan sin final. Sube --max-length (al "
        "preentrenar, --context-length) o usa --over-long split.",
    ),
    "data.all_lost_to_length": (
        "The length limit of {length:,} tokens cuts off all that carries loss: the answers begin "
        "behind it, and nothing can be learnt. Give --max-length {least} or more, or --over-long "
        "split.",
        "El límite de {length:,} tokens corta todo lo que cuenta para la pérdida: las respuestas "
        "empiezan más allá y no hay nada que aprender. Usa --max-length {least} o más, o "
        "--over-long split.",
    ),
    "data.copies": (
        "{count:,} of {total:,} documents ({percent:.1f} %) {count:|is|are} equal to an earlier "
        "one and will be learnt more than once. If that is not meant: --duplicates drop.",
        "{count:,} de {total:,} documentos ({percent:.1f} %) {count:|es igual|son iguales} a otro "
        "anterior y se {count:|aprenderá|aprenderán} más de una vez. Si no es a propósito: "
        "--duplicates drop.",
    ),
    "data.near_copies": (
        "{total:|The one validation document|{count:,} of {total:,} validation documents} also "
        "{count:|stands|stand} in the training set but for case, spaces or accents (for example "
        "{val} and {train}): the validation loss will look better than it is. Remove the copies, "
        "or hold out documents of another origin.",
        "{total:|El único documento|{count:,} de los {total:,} documentos} de validación "
        "{count:|está|están} también en el entrenamiento, salvo mayúsculas, espacios o tildes "
        "(por ejemplo {val} y {train}): la pérdida de validación parecerá mejor de lo que es. "
        "Quita las copias o reserva documentos de otro origen.",
    ),
    "data.number_copies": (
        "{total:|The one validation document|{count:,} of {total:,} validation documents} also "
        "{count:|stands|stand} in the training set with other numbers and the same words (for "
        "example {val} and {train}), though {count:|it has|they have} few digits: the validation "
        "loss may look better than it is. If they are copies, remove them.",
        "{total:|El único documento|{count:,} de los {total:,} documentos} de validación "
        "{count:|está|están} también en el entrenamiento con las mismas palabras y otras cifras "
        "(por ejemplo {val} y {train}), aunque {count:|tiene|tienen} pocas: la pérdida de "
        "validación puede parecer mejor de lo que es. Si son copias, quítalas.",
    ),
    "data.digits_alone": (
        "{count:,} of {total:,} documents ({percent:.0f} %) are equal to another but for their "
        "digits, in {forms:,} {forms:|form|forms} (for example {one} and {other}); {held:,} of "
        "them {held:|is|are} held out for validation while {held:|its|their} like is trained on. "
        "In exercises in arithmetic that is usual; elsewhere they may be copies.",
        "{count:,} de {total:,} documentos ({percent:.0f} %) solo se distinguen de otro en las "
        "cifras, en {forms:,} {forms:|forma|formas} (por ejemplo {one} y {other}); {held:,} de "
        "ellos {held:|está reservado|están reservados} para validar mientras se entrena con otros "
        "iguales. En ejercicios de aritmética es lo normal; en otros textos pueden ser copias.",
    ),
    "data.val_in_train": (
        "{seen:,} of the {lines:,} longer lines of the validation text ({percent:.0f} %) also "
        "{seen:|stands|stand} in the training text: the validation loss will look better than it "
        "is. Remove repeated text, or hold out another part.",
        "{seen:,} de las {lines:,} líneas largas del texto de validación ({percent:.0f} %) "
        "{seen:|está|están} también en el de entrenamiento: la pérdida de validación parecerá "
        "mejor de lo que es. Quita el texto repetido o reserva otra parte.",
    ),
    "data.tokens_per_byte": (
        "This tokenizer spends {tokens:.2f} tokens on a byte of this text: it was made for other "
        "text. Use --tokenizer bpe:SIZE, trained on this one, or byte.",
        "Este tokenizador gasta {tokens:.2f} tokens por byte de este texto: se hizo para otro. Usa "
        "--tokenizer bpe:SIZE, entrenado con este, o byte.",
    ),
    "data.languages": (
        "{name} mixes languages ({languages}). If that is not meant, split the file.",
        "{name} mezcla idiomas ({languages}). Si no es a propósito, separa el archivo.",
    ),
    "data.encoding_detected": (
        "{name} is not UTF-8; it was read as {encoding}, which fits its bytes. Where that is right "
        "there is nothing to do (--encoding {encoding} says so once and for all); if letters look "
        "wrong, give another --encoding.",
        "{name} no está en UTF-8; se ha leído como {encoding}, que encaja con sus bytes. Si es lo "
        "correcto, no hay nada que hacer (--encoding {encoding} lo deja dicho); si alguna letra "
        "sale mal, da otro --encoding.",
    ),
    "data.vocabulary_smaller": (
        "The vocabulary has {size:,} entries, not the {asked:,} that were asked for: this text "
        "gives no more.",
        "El vocabulario tiene {size:,} entradas y no las {asked:,} que se pedían: este texto no da "
        "para más.",
    ),
    "data.one_column": (
        "{name} has a single column, {column!r}, which is no name known here: it is read as plain "
        "text, and all of it is learnt. Separators tried: comma, semicolon, tab and |. If there "
        "are more columns, save the file with one of these; if the column is text, say so: "
        '--columns "text={column}".',
        "{name} tiene una sola columna, {column!r}, que no es ningún nombre conocido: se lee como "
        "texto sin más y se aprende entera. Separadores probados: coma, punto y coma, tabulador y "
        "|. Si hay más columnas, guarda el archivo con uno de ellos; si la columna es texto, "
        'dilo: --columns "text={column}".',
    ),
    "data.one_field": (
        "The records of {name} have a single field, {column!r}, which is no name known here: it "
        "is read as plain text, and all of it is learnt. If that is meant, say so: --columns "
        '"text={column}".',
        "Los registros de {name} tienen un solo campo, {column!r}, que no es ningún nombre "
        "conocido: se lee como texto sin más y se aprende entero. Si es a propósito, dilo: "
        '--columns "text={column}".',
    ),
    "data.pad_is_end": (
        "This tokenizer pads with its end token. Trainers that mask padding by its id would mask "
        "every end and the model would never stop; here padding is masked by its place, the end "
        "keeps its loss, and the tokenizer is saved without that padding token.",
        "Este tokenizador rellena con su token de fin. Quien enmascara el relleno por su id "
        "enmascara todos los finales, y el modelo no aprende a parar; aquí el relleno se "
        "enmascara por su posición, el fin cuenta para la pérdida y el tokenizador se guarda sin "
        "ese token de relleno.",
    ),
    "data.unmet_tokens": (
        "{names} {count:|does|do} not occur in the training tokens, so the model learns nothing "
        "of {count:|it|them} yet: only a chat template writes control tokens, and the same text "
        "in the data stays text.",
        "{names} no {count:|aparece|aparecen} en los tokens de entrenamiento, así que el modelo "
        "aún no aprende nada de {count:|él|ellos}: los tokens de control solo los escribe la "
        "plantilla de chat, y ese mismo texto en los datos sigue siendo texto.",
    ),
    "data.long_record": (
        "{count:,} {count:|record|records} of more than a million characters, at {places}: is a "
        "whole file in one line? Nothing is left out.",
        "{count:,} {count:|registro|registros} de más de un millón de caracteres, en {places}: "
        "¿hay un archivo entero en una línea? No se quita nada.",
    ),
    "data.tools_dropped": (
        "The chat template writes nothing of the tools listed in {count:,} "
        "{count:|conversation|conversations}; what is said about them there is not learnt.",
        "La plantilla no escribe nada de las herramientas enumeradas en {count:,} "
        "{count:|conversación|conversaciones}; lo que se dice ahí de ellas no se aprende.",
    ),
    "data.extra_dropped": (
        "The chat template leaves out a part of {count:,} {count:|conversation|conversations} "
        "beside the contents "
        "(reasoning, names, calls of tools).",
        "La plantilla deja fuera una parte de {count:,} {count:|conversación|conversaciones}, "
        "además de los contenidos "
        "(razonamientos, nombres, llamadas a herramientas).",
    ),
    "data.template_no_end": (
        "The chat template ends no answer with a control token. {token} is put behind the last "
        "answer of each conversation and learnt, so that the model stops.",
        "La plantilla de chat no cierra las respuestas con ningún token de control. Se añade "
        "{token} tras la última respuesta de cada conversación, y se aprende, para que el modelo "
        "sepa parar.",
    ),
    "data.template_prompt_differs": (
        "In training an answer stands behind {trained!r}, but the template asks for one with "
        "{prompt!r}: the model may answer worse than it has learnt to. Mend the template's "
        "add_generation_prompt part.",
        "En el entrenamiento la respuesta va tras {trained!r}, pero la plantilla la pide con "
        "{prompt!r}: el modelo podría responder peor de lo que ha aprendido. Corrige la parte "
        "add_generation_prompt de la plantilla.",
    ),
    "data.template_date": (
        "The chat template writes today's date, so that preparing the same data tomorrow gives "
        "other tokens.",
        "La plantilla de chat escribe la fecha de hoy: los mismos datos preparados mañana darán "
        "otros tokens.",
    ),
}
