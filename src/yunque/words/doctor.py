"""Sentences of the doctor room."""

WORDS: dict[str, tuple[str, str]] = {
    "doctor.status_ok": ("ok", "bien"),
    "doctor.status_missing": ("missing", "falta"),
    "doctor.status_old": ("too old", "anticuado"),
    "doctor.status_unusable": ("unusable", "inservible"),
    # Names of the layers that are not proper names.
    "doctor.name_cuda_driver": ("NVIDIA driver", "Controlador NVIDIA"),
    "doctor.name_cuda_runtime": ("CUDA in PyTorch", "CUDA en PyTorch"),
    "doctor.name_cudnn": ("cuDNN", "cuDNN"),
    "doctor.name_gpu_memory": ("GPU {index} memory", "Memoria de GPU {index}"),
    "doctor.name_gpu_precision": ("GPU {index} precision", "Precisión de GPU {index}"),
    "doctor.name_cpu_features": ("CPU instructions", "Instrucciones de CPU"),
    "doctor.name_matmul": ("CPU speed", "Velocidad de CPU"),
    "doctor.name_memory": ("Main memory", "Memoria RAM"),
    "doctor.name_disk": ("Free disk here", "Disco libre aquí"),
    "doctor.name_compiler": ("C++ compiler", "Compilador de C++"),
    # What each package is for, inside other sentences.
    "doctor.for_numpy": ("token files and arrays", "los archivos de tokens y las matrices"),
    "doctor.for_torch": ("training and running models", "entrenar y usar modelos"),
    "doctor.for_transformers": (
        "opening public models and their tokenizers",
        "abrir modelos públicos y sus tokenizadores",
    ),
    "doctor.for_tokenizers": ("turning text into tokens", "convertir el texto en tokens"),
    "doctor.for_tiktoken": ("tokenizing much text quickly", "tokenizar deprisa mucho texto"),
    "doctor.for_sentencepiece": (
        "the tokenizers of Llama, Mistral and T5, and unigram",
        "los tokenizadores de Llama, Mistral y T5, y unigram",
    ),
    "doctor.for_pyarrow": ("parquet files", "los archivos parquet"),
    "doctor.for_zstandard": (".zst files", "los archivos .zst"),
    "doctor.for_safetensors": (
        "reading and writing weights safely",
        "leer y guardar los pesos sin riesgo",
    ),
    "doctor.for_accelerate": (
        "training on several GPUs or machines",
        "entrenar en varias GPU o máquinas",
    ),
    "doctor.for_plotly": ("the charts of the HTML report", "las gráficas del informe HTML"),
    "doctor.for_matplotlib": ("the PNG of the report", "la imagen PNG del informe"),
    "doctor.for_peft": ("LoRA adapters", "los adaptadores LoRA"),
    "doctor.for_gguf": ("writing GGUF files (optional)", "escribir archivos GGUF (opcional)"),
    "doctor.for_bitsandbytes": (
        "4-bit and 8-bit weights (optional)",
        "los pesos de 4 y 8 bits (opcional)",
    ),
    "doctor.for_datasets": (
        "data sets of the Hugging Face Hub (optional)",
        "los conjuntos de datos de Hugging Face Hub (opcional)",
    ),
    "doctor.python_ok": ("Runs Yunque.", "Sirve para Yunque."),
    "doctor.python_old": (
        "Yunque needs Python {oldest} or newer. Install it and make a new virtual environment.",
        "Yunque necesita Python {oldest} o posterior. Instálalo y crea un entorno virtual nuevo.",
    ),
    "doctor.package_ok": ("For {purpose}.", "Para {purpose}."),
    "doctor.package_missing": (
        "Not installed. It is for {purpose}.",
        "No está instalado. Sirve para {purpose}.",
    ),
    "doctor.package_old": (
        "Yunque needs {range}. It is for {purpose}.",
        "Yunque necesita {range}. Sirve para {purpose}.",
    ),
    "doctor.package_new": (
        "Newer than the versions that Yunque was tested with ({range}).",
        "Es más reciente que las versiones con las que se probó Yunque ({range}).",
    ),
    "doctor.package_broken": (
        "Installed, but it cannot be imported ({error}). It is for {purpose}.",
        "Está instalado, pero no se puede importar ({error}). Sirve para {purpose}.",
    ),
    "doctor.driver_ok": ("The GPU's driver answers.", "El controlador de la GPU responde."),
    "doctor.driver_missing": (
        "No NVIDIA driver. Only a machine with an NVIDIA GPU needs one.",
        "No hay controlador NVIDIA. Solo hace falta en una máquina con GPU NVIDIA.",
    ),
    "doctor.driver_old": (
        "The driver is older than this PyTorch's CUDA ({error}). Update the driver, or install "
        "the PyTorch that fits it.",
        "El controlador es anterior a la CUDA de este PyTorch ({error}). Actualiza el controlador "
        "o instala el PyTorch que le corresponde.",
    ),
    "doctor.driver_broken": (
        "The driver is there, but CUDA does not start ({error}). Restart the machine; if that "
        "does not help, install the driver again.",
        "El controlador está, pero CUDA no arranca ({error}). Reinicia la máquina; si no basta, "
        "vuelve a instalar el controlador.",
    ),
    "doctor.cuda_runtime_ok": ("Comes with PyTorch.", "Viene con PyTorch."),
    "doctor.cuda_runtime_lost": (
        "There is an NVIDIA GPU, but this PyTorch is the CPU build and will not use it.",
        "Hay una GPU NVIDIA, pero este PyTorch es la versión para CPU y no la usará.",
    ),
    "doctor.cuda_runtime_missing": (
        "This PyTorch is the CPU build, which is right without an NVIDIA GPU.",
        "Este PyTorch es la versión para CPU, la adecuada si no hay GPU NVIDIA.",
    ),
    "doctor.cudnn_ok": ("Comes with PyTorch.", "Viene con PyTorch."),
    "doctor.cudnn_lost": (
        "It comes with the CUDA build of PyTorch.",
        "Viene con la versión CUDA de PyTorch.",
    ),
    "doctor.cudnn_missing": (
        "Needed only with an NVIDIA GPU.",
        "Solo hace falta con una GPU NVIDIA.",
    ),
    "doctor.gpu_ok": ("A first computation on it worked.", "Un primer cálculo en ella funcionó."),
    "doctor.gpu_mps": ("Trains through Metal.", "Entrena mediante Metal."),
    "doctor.gpu_missing": (
        "None found. Yunque trains on the CPU; small models take minutes there.",
        "No se encontró ninguna. Yunque entrena en la CPU; los modelos pequeños tardan minutos.",
    ),
    "doctor.gpu_hidden": (
        "The NVIDIA driver is there, but this PyTorch sees no GPU. Until that is mended, Yunque "
        "trains on the CPU.",
        "El controlador NVIDIA está, pero este PyTorch no ve ninguna GPU. Mientras no se arregle, "
        "Yunque entrena en la CPU.",
    ),
    "doctor.gpu_arch": (
        "This PyTorch holds no code for {arch}, only for: {codes}. The first computation would "
        "fail; use --device cpu until that is mended.",
        "Este PyTorch no trae código para {arch}, solo para: {codes}. El primer cálculo fallaría; "
        "usa --device cpu mientras no se arregle.",
    ),
    "doctor.gpu_broken": (
        "A first computation on it failed ({error}). Use --device cpu until that is mended.",
        "Un primer cálculo en ella falló ({error}). Usa --device cpu mientras no se arregle.",
    ),
    "doctor.gpu_memory": ("{free} GiB of it are free.", "De ellos, {free} GiB libres."),
    "doctor.gpu_bf16": (
        "bf16 in hardware: precision auto takes it.",
        "Tiene bf16 por hardware: la precisión auto lo usa.",
    ),
    "doctor.gpu_fp16": (
        "No bf16 in hardware: precision auto takes fp32; --precision fp16 is faster here.",
        "No tiene bf16 por hardware: la precisión auto usa fp32; aquí --precision fp16 es más "
        "rápida.",
    ),
    "doctor.gpu_fp32": (
        "Neither bf16 nor fast fp16 in hardware: precision auto takes fp32.",
        "No tiene bf16 ni fp16 rápido por hardware: la precisión auto usa fp32.",
    ),
    "doctor.cpu": (
        "Usable cores: {cores}; threads in PyTorch: {threads}.",
        "Núcleos disponibles: {cores}; hilos en PyTorch: {threads}.",
    ),
    "doctor.cpu_features": (
        "Instruction sets that speed up training.",
        "Juegos de instrucciones que aceleran el entrenamiento.",
    ),
    "doctor.cpu_slow": (
        "No AVX2: PyTorch works, but several times slower than on a newer CPU.",
        "Sin AVX2: PyTorch funciona, pero varias veces más despacio que en una CPU más nueva.",
    ),
    "doctor.fp32_faster": (
        "bf16 is slower than fp32 on this CPU: precision auto takes fp32.",
        "En esta CPU bf16 es más lento que fp32: la precisión auto usa fp32.",
    ),
    "doctor.bf16_faster": (
        "bf16 is faster than fp32 on this CPU: precision auto takes bf16.",
        "En esta CPU bf16 es más rápido que fp32: la precisión auto usa bf16.",
    ),
    "doctor.auto_is_slower": (
        "Precision auto takes {auto} on this CPU, but {faster} measured faster.",
        "En esta CPU la precisión auto usa {auto}, pero al medir resultó más rápido {faster}.",
    ),
    "doctor.memory": ("{free} GiB of it are available.", "De ellos, {free} GiB disponibles."),
    "doctor.memory_total": (
        "The system does not say how much of it is free.",
        "El sistema no dice cuánta está libre.",
    ),
    "doctor.memory_unknown": (
        "The system does not say how much there is.",
        "El sistema no dice cuánta hay.",
    ),
    "doctor.disk_ok": ("For runs and checkpoints.", "Para las ejecuciones y sus copias."),
    "doctor.disk_full": (
        "Almost full. Free some space, or choose an --out on another disk.",
        "Casi lleno. Libera espacio o elige un --out en otro disco.",
    ),
    "doctor.compiler_ok": ("torch.compile can use it.", "torch.compile puede usarlo."),
    "doctor.compiler_missing": (
        "Without one torch.compile does not work; everything else does.",
        "Sin él no funciona torch.compile; todo lo demás, sí.",
    ),
    "doctor.compiler_headers": (
        "Python's C headers (Python.h) are missing: torch.compile does not work; everything else "
        "does.",
        "Faltan las cabeceras de C de Python (Python.h): no funciona torch.compile; todo lo "
        "demás, sí.",
    ),
}
