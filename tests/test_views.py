"""``@track_event`` on every kind of view."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http import HttpResponse
from django.test import AsyncClient, RequestFactory
from django.utils.translation import gettext_lazy
from django.views import View

from pluginhost import InvalidEvent, host, track_event
from pluginhost.delivery import memory

rf = RequestFactory()
aget = async_to_sync(AsyncClient().get)


def tracked():
    return [(event.name, event.properties) for event in memory.events]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/decorated/", ("listed", {"kind": "list"})),
        ("/adecorated/", ("alisted", {"status": 200})),
        ("/seen/", ("class seen", {})),
        ("/method/", ("method seen", {})),
        ("/aseen/", ("async class seen", {})),
    ],
)
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_each_kind_of_view(configure, client, path, expected, asgi):
    configure(recorder={})
    assert (aget if asgi else client.get)(path).status_code == 200
    assert tracked() == [expected]
    assert memory.events[0].context.path == path


@pytest.mark.parametrize(("status", "n"), [(200, 1), (204, 1), (302, 1), (399, 1), (400, 0), (404, 0), (500, 0)])
def test_only_answers_below_400_are_tracked(configure, client, status, n):
    configure(recorder={})
    client.get("/decorated/", {"status": status})
    assert len(memory.events) == n


@pytest.mark.parametrize(("status", "n"), [(302, 1), (400, 0), (500, 0)])
def test_only_answers_of_async_views_below_400_are_tracked(configure, status, n):
    @track_event("x")
    async def view(request):
        return HttpResponse(status=status)

    configure(recorder={})
    async_to_sync(view)(rf.get("/"))
    assert len(memory.events) == n


def test_a_view_that_raises_is_not_tracked(configure, client):
    configure(recorder={})
    assert client.get("/decorated/", {"missing": 1}).status_code == 404
    assert client.post("/seen/").status_code == 405
    assert not memory.events


def test_details_are_handed_on(configure):
    @track_event(gettext_lazy("sent"), user_id=5, value=2, key="once")
    def view(request):
        return HttpResponse()

    configure(recorder={})
    view(rf.get("/"))
    view(rf.get("/"))
    first, second = memory.events
    assert (first.name, first.user_id, first.value, first.message_id) == ("sent", "5", 2, second.message_id)


def test_properties_may_be_made_of_request_and_response(configure):
    @track_event("made", lambda request, response: {"q": request.GET["q"], "n": len(response.content)})
    def view(request):
        return HttpResponse("abc")

    configure(recorder={})
    view(rf.get("/?q=x"))
    assert tracked() == [("made", {"q": "x", "n": 3})]


def test_no_properties_may_be_made(configure):
    view = track_event("made", lambda request, response: None)(lambda request: HttpResponse())
    configure(recorder={})
    view(rf.get("/"))
    assert tracked() == [("made", {})]


def test_properties_that_fail_do_not_break_the_view(configure, caplog):
    @track_event("made", lambda request, response: {"q": request.GET["missing"]})
    def view(request):
        return HttpResponse("paid")

    configure(recorder={}, STRICT=False)
    assert view(rf.get("/")).content == b"paid"
    assert "event 'made' refused: properties: could not be read" in caplog.text
    assert "MultiValueDictKeyError" in caplog.text

    configure(recorder={})
    with pytest.raises(InvalidEvent, match=r"^properties: could not be read"):
        view(rf.get("/"))


def test_properties_are_not_made_when_tracking_is_turned_off(configure):
    def properties(request, response):
        raise AssertionError("asked")

    configure(recorder={}, ENABLED=False)
    assert track_event("made", properties)(lambda request: HttpResponse())(rf.get("/")).status_code == 200


def test_a_view_keeps_its_name_and_its_kind():
    @track_event("x")
    def view(request):
        """Doc."""

    @track_event("x")
    async def aview(request): ...

    assert (view.__name__, view.__doc__) == ("view", "Doc.")
    assert not iscoroutinefunction(view)
    assert iscoroutinefunction(aview)


def test_the_async_function_of_a_class_based_view(configure):
    """``as_view()`` gives a plain function that is marked as a coroutine function."""

    class Async(View):
        async def get(self, request):
            return HttpResponse("seen")

    configure(recorder={})
    view = track_event("seen")(Async.as_view())
    assert async_to_sync(view)(rf.get("/")).content == b"seen"
    assert tracked() == [("seen", {})]


def test_a_decorated_class_is_the_same_class_and_is_inherited(configure):
    @track_event("parent")
    class Parent(View):
        def get(self, request):
            return HttpResponse()

    class Child(Parent):
        pass

    configure(recorder={})
    assert isinstance(Parent, type)
    Child.as_view()(rf.get("/"))
    assert tracked() == [("parent", {})]


def test_the_request_may_be_a_keyword_or_wrapped(configure):
    class Wrapped:
        def __init__(self, request):
            self._request = request

    @track_event("x")
    def view(request):
        return HttpResponse()

    configure(recorder={})
    view(request=rf.get("/keyword"))
    view(Wrapped(rf.get("/wrapped")))
    assert [event.context.path for event in memory.events] == ["/keyword", "/wrapped"]


def test_a_function_without_a_request_fails_before_it_runs(configure):
    ran = []
    configure(recorder={})
    with pytest.raises(TypeError, match="found no request"):
        track_event("x")(ran.append)("not a request")
    assert not ran


def test_a_view_that_answers_nothing_is_not_tracked(configure):
    """Django itself says what is wrong with it."""
    configure(recorder={})
    assert track_event("x")(lambda request: None)(rf.get("/")) is None
    assert not memory.events


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda: track_event("x")(dict), "dict is not a subclass of django.views.View"),
        (lambda: track_event("x")("view"), "a str is none"),
        (lambda: track_event(lambda request: None), 'write @track_event("name")'),
        (lambda: track_event("x", propertys={}), "unexpected keyword arguments: propertys"),
    ],
    ids=["class", "text", "no name", "keyword"],
)
def test_a_wrong_target_is_refused_at_once(wrong, problem):
    with pytest.raises(TypeError) as raised:
        wrong()
    assert problem in str(raised.value)


def test_every_detail_of_track_is_taken(configure):
    details = {"user_id": 1, "anonymous_id": 2, "timestamp": None, "key": "k", "subject": None, "value": 1}
    configure(recorder={})
    view = track_event("x", None, **details, plugins={"recorder": True}, using=None)(lambda request: HttpResponse())
    view(rf.get("/"))
    assert memory.events[0].anonymous_id == "2"
    assert host.track(None, "x", None, **details, using="default")
