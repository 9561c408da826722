"""Languages of texts and collections. What the library finds in other people's texts is in decision
134."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_api.languages import language_of
from tests.unit.test_search_api import Site, site, started  # noqa: F401

TEXTS = {
    "arabic": "يعمل الخادم بدون إنترنت. تبقى النماذج والوثائق على الجهاز.",
    "danish": "Serveren virker uden internet. Modellerne og dokumenterne bliver på maskinen.",
    "dutch": "De server werkt zonder internet. Modellen en documenten blijven op de machine.",
    "english": "The server works without the internet. Models and documents stay on the machine.",
    "finnish": "Palvelin toimii ilman verkkoyhteyttä. Mallit ja asiakirjat pysyvät koneella.",
    "french": "Le serveur fonctionne sans internet. Les modèles et les documents restent ici.",
    "german": "Der Server läuft ohne Internet. Modelle und Dokumente bleiben auf dem Rechner.",
    "greek": "Ο διακομιστής λειτουργεί χωρίς διαδίκτυο. Τα έγγραφα μένουν στο μηχάνημα.",
    "hungarian": "A kiszolgáló internet nélkül is működik. A dokumentumok a gépen maradnak.",
    "italian": "Il server funziona senza internet. I modelli e i documenti restano sulla macchina.",
    "norwegian": "Tjeneren virker uten nett. Modellene og dokumentene blir værende på maskinen.",
    "portuguese": "O servidor funciona sem internet. Os modelos e os documentos não saem daqui.",
    "romanian": "Serverul funcționează fără internet. Modelele și documentele rămân pe mașină.",
    "russian": "Сервер работает без интернета. Модели и документы остаются на машине.",
    "spanish": "El servidor funciona sin internet. Los modelos y los documentos se quedan aquí.",
    "swedish": "Servern fungerar utan internet. Modellerna och dokumenten stannar på maskinen.",
    "turkish": "Sunucu internet olmadan çalışır. Modeller ve belgeler makinede kalır.",
}
UNSTEMMED = {
    "chinese": "服务器不需要互联网。模型和文件都留在机器上。",
    "japanese": "サーバーはインターネットなしで動きます。文書は機械の中に残ります。",
    "korean": "서버는 인터넷 없이 작동합니다. 모델과 문서는 장치에 남아 있습니다.",
    "polish": "Serwer działa bez internetu. Modele i dokumenty pozostają na maszynie.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_language_with_a_stemmer_is_found(language: str) -> None:
    assert language_of([TEXTS[language]]) == language


@pytest.mark.parametrize("text", UNSTEMMED.values(), ids=UNSTEMMED)
def test_language_without_a_stemmer_is_none(text: str) -> None:
    assert language_of([text]) == "none"


def test_language_of_most_of_the_text_decides() -> None:
    german = [TEXTS["german"]] * 3
    assert language_of([*german, TEXTS["french"], TEXTS["english"]]) == "german"
    assert language_of([TEXTS["german"], TEXTS["french"], TEXTS["english"]]) == "none"
    assert language_of([]) == "none"


def _state(client: TestClient) -> dict[str, Any]:
    state: dict[str, Any] = client.get("/v1/collections/texts").json()
    return state


def _found(client: TestClient, query: str) -> list[str]:
    body = {"query": query, "collection": "texts", "mode": "words"}
    return [each["id"] for each in client.post("/v1/search", json=body).json()["results"]]


def test_first_documents_decide_the_language_of_a_collection(site: Site) -> None:  # noqa: F811
    new = {"name": "texts", "language": "detect"}
    with started(site.search()) as client:
        assert client.post("/v1/collections", json=new).json()["language"] == "detect"
        assert _found(client, "Dokument") == []
        german = [{"id": str(n), "text": f"{TEXTS['german']} Nummer {n}."} for n in range(5)]
        body = {"collection": "texts", "documents": german}
        assert client.put("/v1/documents", json=body).status_code == 204
        assert _state(client)["language"] == "german"
        assert len(_found(client, "Dokument")) == 5  # by its stem
        french = {"id": "fr", "text": TEXTS["french"]}
        client.put("/v1/documents", json={"collection": "texts", "documents": [french]})
        assert _state(client)["language"] == "german"


def test_declared_language_stays(site: Site) -> None:  # noqa: F811
    with started(site.search()) as client:
        client.post("/v1/collections", json={"name": "texts", "language": "english"})
        body = {"collection": "texts", "documents": [{"id": "de", "text": TEXTS["german"]}]}
        client.put("/v1/documents", json=body)
        assert _state(client)["language"] == "english"


def test_reembedding_detects_again_from_all_documents(site: Site) -> None:  # noqa: F811
    with started(site.search()) as client:
        client.post("/v1/collections", json={"name": "texts", "language": "detect"})
        for count, language in ((1, "french"), (9, "german")):
            documents = [{"id": f"{language}{n}", "text": TEXTS[language]} for n in range(count)]
            client.put("/v1/documents", json={"collection": "texts", "documents": documents})
        assert _state(client)["language"] == "french"
        assert client.post("/v1/collections/texts/reembed").status_code == 202
        while _state(client)["reembedded_passages"] is not None:
            pass
        assert _state(client)["language"] == "german"
        assert len(_found(client, "Dokument")) == 9
