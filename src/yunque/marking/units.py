"""Units that make a figure another one: 5 m is not 5 km. Only those that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

CURRENCY = "money"
"""A sign of money whose currency is left open."""

NAMES: Mapping[str, str] = {
    "km": "km kilometre kilometres kilometer kilometers kilometro kilometros",
    "m": "m metre metres meter meters metro metros",
    "cm": "cm centimetre centimetres centimeter centimeters centimetro centimetros",
    "mm": "mm millimetre millimetres millimeter millimeters milimetro milimetros",
    "mile": "mile miles mi milla millas",
    "foot": "foot feet ft pie pies",
    "inch": "inch inches pulgada pulgadas",
    "yard": "yard yards yd yarda yardas",
    "kg": "kg kgs kilo kilos kilogram kilograms kilogramo kilogramos",
    "g": "g gram grams gramo gramos",
    "mg": "mg milligram milligrams miligramo miligramos",
    "pound": "lb lbs libra libras",
    "ounce": "oz ounce ounces onza onzas",
    "litre": "l L litre litres liter liters litro litros",
    "ml": "ml mL millilitre millilitres milliliter milliliters mililitro mililitros",
    "second": "s second seconds sec segundo segundos",
    "minute": "min mins minute minutes minuto minutos",
    "hour": "h hr hrs hour hours hora horas",
    "day": "day days dia dias",
    "week": "week weeks semana semanas",
    "month": "month months mes meses",
    "year": "year years año años",
    "dollar": "dollar dollars dolar dolares USD",
    "euro": "euro euros EUR",
    "sterling": "GBP",
    "peso": "peso pesos MXN",
    "cent": "cent cents centavo centavos centimo centimos ¢",
    "km/h": "km/h kmh kph",
    "m/s": "m/s",
    "mph": "mph",
    "cm2": "cm^2",
    "m2": "m^2",
    "km2": "km^2",
    "cm3": "cm^3",
    "m3": "m^3",
}
UNITS: Mapping[str, str] = {name: unit for unit, names in NAMES.items() for name in names.split()}
MONEY = {"dollar", "euro", "sterling", "peso", "cent", CURRENCY}


def contradict(key: str, reply: str) -> bool:
    """Whether two units cannot mean the same; where one is not known, they may."""
    if not key or not reply or key == reply:
        return False
    if CURRENCY in (key, reply):
        return not {key, reply} <= MONEY or "cent" in (key, reply)
    return True
