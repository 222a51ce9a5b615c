"""Word lists for invented names, streets and owners. None names a real service."""

from __future__ import annotations

PLACES = (
    "l'Alzina", "la Font Vella", "el Roure", "la Masia Blanca", "l'Ametller", "les Oliveres", "el Molí Nou",
    "la Llum", "el Turó", "la Vinya", "l'Avet", "les Acàcies", "el Romaní", "la Farigola", "el Xiprer",
    "la Marinada", "el Garbí", "la Tramuntana", "l'Aurora", "el Pont Vell", "la Riera", "els Tarongers",
    "la Glicina", "el Bruc", "la Pineda", "el Lledoner", "les Moreres", "la Clariana", "l'Olivera", "el Serrat",
    "la Savina", "els Til·lers", "la Ginesta", "el Cirerer", "la Carena", "el Pedrís", "la Solana", "l'Eixida",
)  # fmt: skip
SAINTS = (
    "Sant Alèxic", "Santa Fe", "Sant Roc", "Santa Llúcia", "Sant Galderic", "Santa Oliva", "Sant Medir",
    "Santa Tecla", "Sant Isidre", "Santa Eugènia", "Sant Ponç", "Santa Coloma",
)  # fmt: skip
SURNAMES = (
    "Puigvert", "Solanes", "Ferrerons", "Casadevila", "Vilaplana", "Rocamora", "Comallonga", "Bonafont",
    "Masdeu", "Torrentó", "Carbonera", "Pladevall", "Serradell", "Fontdevila", "Castellnou", "Arboix",
)  # fmt: skip
STREETS = (
    "Major", "de l'Església", "del Pou", "de la Font", "Nou", "de Dalt", "de Baix", "del Mar", "de les Escoles",
    "del Molí", "de la Creu", "del Raval", "de les Hortes", "del Forn", "de la Pau", "de l'Estació",
)  # fmt: skip
STREET_KINDS = ("C.", "Carrer", "Av.", "Pl.", "Pg.", "Ctra.")
FOUNDATIONS = ("Fundació Demo", "Associació Demo", "Cooperativa Demo", "Germandat Demo")
COMPANIES = ("Gestió Demo", "Serveis Demo", "Residencial Demo", "Atenció Demo")
OWNERSHIPS = {
    "public": "Entitat d'iniciativa pública",
    "social_initiative": "Entitat privada d'iniciativa social",
    "mercantile": "Entitat privada d'iniciativa mercantil",
}
BARCELONA_DISTRICTS = (
    "Ciutat Vella", "Eixample", "Sants-Montjuïc", "Les Corts", "Sarrià-Sant Gervasi", "Gràcia", "Horta-Guinardó",
    "Nou Barris", "Sant Andreu", "Sant Martí",
)  # fmt: skip
RENAMED = {
    "170486": "Castell-Platja d'Aro",
    "171002": "Masarac",
    "430271": "Bisbal de Falset, la",
    "431362": "Sant Carles de la Ràpita",
    "080235": "Bigues i Riells",
}
"""Former names of municipalities, which the register still uses."""
