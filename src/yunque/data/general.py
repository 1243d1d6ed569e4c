"""A small general text in both languages: a fine-tuned model that forgets grows worse at it.

Written for this purpose; about things that no set of exercises teaches.
"""

from __future__ import annotations

GENERAL_TEXTS = (
    "The old harbour wakes up before the town does. Men in rubber boots carry crates of ice across "
    "the quay, gulls argue over what falls from them, and the first bus waits with its lights on. "
    "By eight o'clock the fish has been sold and the cafés are full. A teacher reads the paper, "
    "two nurses talk about their night shift, and a child asks why the sea is salt. Nobody knows "
    "for certain, but the grandmother explains it all the same: rivers bring a little of every "
    "mountain down with them, the sun takes the water back, and what the rivers brought has to "
    "stay. In winter, when storms keep the boats at home, the same people sit here longer and tell "
    "each other what they already know.",
    "En el pueblo de mi padre había una sola tienda, y en ella se vendía de todo: clavos, pan, "
    "cuadernos, queso y noticias. La dueña conocía a cada cliente por su nombre y apuntaba las "
    "deudas en una libreta que nunca perdió. Los domingos, después de misa, los viejos se sentaban "
    "en el banco de la puerta para hablar del tiempo y de la cosecha. Si llovía en abril, se "
    "alegraban; si helaba en mayo, callaban. Cuando cerró la tienda, hace ya veinte años, la gente "
    "empezó a comprar en la ciudad, y el banco se quedó vacío. Hoy lo ha pintado de azul una "
    "muchacha que volvió con sus hijos, y por las tardes vuelve a haber alguien sentado en él.",
)
