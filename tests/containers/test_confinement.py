"""What a container of the service may have, for every home, catalogue and folder."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.containers.confinement import (
    Surroundings,
    check_source,
    confine_container,
    plan_mounts,
    require_user,
)
from ds01d.errors import Ds01Error, Refused
from ds01d.model.confinement import FolderStatus, Mount
from ds01d.model.creation import Person, Setup

AMY = Person(uid=2001, name="amy", gid=2001, home="/home/amy", groups=(100, 2001))
ROOTS = FolderStatus(uid=0, is_folder=True, others_write=False)
HOME = FolderStatus(uid=2001, is_folder=True, others_write=False)
HOST: Mapping[str, FolderStatus] = {
    "/": ROOTS,
    "/home": ROOTS,
    "/home/amy": HOME,
    "/data": replace(ROOTS, others_write=True),  # everybody may write in it, nobody replace it
    "/tmp": replace(ROOTS, others_write=True),
    "/tmp/x": HOME,
}
PARTS = st.sampled_from(["home", "amy", "data", "tmp", "x", "..", ".", "", "etc", "work"])
PATHS = st.lists(PARTS, max_size=5).map(lambda parts: "/" + "/".join(parts))


class Host:
    """Folders by path, as the engine sees them."""

    def __init__(self, changes: Mapping[str, FolderStatus | None] | None = None) -> None:
        self.folders = {**HOST, **(changes or {})}

    def read_status(self, path: str) -> FolderStatus:
        status = self.folders.get(path)
        if status is None:
            raise Ds01Error(f"{path}: No such file or directory")
        return status


def surroundings(host: Host | None = None, **changes: object) -> Surroundings:
    plain = Surroundings(read_status=(host or Host()).read_status)
    return replace(plain, **changes)  # type: ignore[arg-type]


def link(target: str, uid: int = 0) -> FolderStatus:
    return FolderStatus(uid=uid, is_folder=False, others_write=True, link=target)


class TestSources:
    """A source is a path in which nobody but root can exchange anything."""

    @pytest.mark.parametrize("path", ["/home/amy", "/data"])
    def test_that_are_allowed(self, path: str) -> None:
        assert check_source(path, AMY, Host().read_status) == path

    @pytest.mark.parametrize(
        ("path", "changes"),
        [
            ("/", {}),
            ("/tmp/x", {}),
            ("/home/amy", {"/home/amy": None}),
            ("/home/amy", {"/home/amy": replace(HOME, uid=2002)}),
            ("/home/amy", {"/home/amy": ROOTS}),
            ("/home/amy", {"/home/amy": replace(HOME, is_folder=False)}),
            ("/home/amy", {"/home/amy": link("/etc")}),
            ("/home/amy", {"/home/amy": link("/srv"), "/srv": HOME}),
            ("/home/amy", {"/home": HOME}),
            ("/home/amy", {"/home": replace(ROOTS, others_write=True)}),
            ("/home/amy", {"/": replace(ROOTS, others_write=True)}),
            ("/home/amy", {"/home": link("/tmp"), "/tmp/amy": HOME}),
            ("/home/amy", {"/home": link("/home")}),
            ("/home/amy", {"/home": link("/srv", uid=2001), "/srv": ROOTS, "/srv/amy": HOME}),
            ("/data", {"/data": replace(ROOTS, uid=2002)}),
        ],
    )
    def test_that_are_refused(self, path: str, changes: dict[str, FolderStatus | None]) -> None:
        with pytest.raises(Ds01Error, match="is not mounted"):
            check_source(path, AMY, Host(changes).read_status)

    def test_a_link_of_root_s_is_followed(self) -> None:
        host = Host({"/home": link("../srv/homes"), "/srv": ROOTS, "/srv/homes": ROOTS})
        host.folders["/srv/homes/amy"] = HOME
        assert check_source("/home/amy", AMY, host.read_status) == "/srv/homes/amy"

    @given(
        PATHS,
        st.dictionaries(
            PATHS.map(posixpath.normpath),
            st.builds(
                FolderStatus,
                uid=st.sampled_from([0, 2001, 2002]),
                is_folder=st.booleans(),
                others_write=st.booleans(),
                link=st.none() | PATHS,
            ),
        ),
    )
    def test_whatever_is_mounted_cannot_be_exchanged(
        self, path: str, changes: dict[str, FolderStatus | None]
    ) -> None:
        host = Host(changes)
        host.folders["/"] = replace(host.read_status("/"), link=None)
        try:
            source = check_source(path, AMY, host.read_status)
        except Ds01Error:
            return
        assert posixpath.normpath(source) == source != "/"
        parts = source.split("/")[1:]
        for end in range(len(parts)):
            status = host.read_status("/" + "/".join(parts[:end]))
            assert (status.uid, status.others_write, status.link) == (0, False, None)
        last = host.read_status(source)
        assert (last.uid in {0, 2001}, last.link, last.is_folder) == (True, None, True)


class TestMounts:
    """The catalogue's mounts, with the home in the place of what lies in it."""

    def test_a_folder_of_the_home_is_the_working_directory(self) -> None:
        setup = Setup(mounts=("{home}/work:/workspace", "/data:/data:ro"))
        confined = confine_container(setup, AMY, None, surroundings())
        assert confined.mounts == (
            Mount(source="/home/amy", target="/home/amy"),
            Mount(source="/data", target="/data", read_only=True),
        )
        assert (confined.workdir, confined.environment["HOME"]) == ("/home/amy/work", "/home/amy")

    def test_the_home_is_where_the_catalogue_has_it(self) -> None:
        setup = Setup(mounts=("{home}:/me", "{home}/work:/workspace"))
        confined = confine_container(setup, AMY, "/home/amy/src", surroundings())
        assert confined.mounts == (Mount(source="/home/amy", target="/me"),)
        assert (confined.workdir, confined.environment["HOME"]) == ("/me/src", "/me")

    def test_nothing_is_mounted_that_the_catalogue_has_not(self) -> None:
        assert confine_container(Setup(), AMY, None, surroundings()).mounts == ()
        with pytest.raises(Refused, match="does not mount the home"):
            confine_container(Setup(), AMY, "work", surroundings())

    @pytest.mark.parametrize(
        "mounts",
        [
            ("/data:/",),
            ("/data:/proc/x",),
            ("/data:/dev",),
            ("/data:/x", "/data:/x/y"),
            ("{home}:/x", "/data:/x/y"),
            ("/data:/x", "/data:/x"),
            ("/data/../etc:/x",),
            ("/data:/x/../y",),
            ("/data:/x:Z",),
            ("/data:/x:rshared",),
            ("{home}/../ben:/x",),
        ],
    )
    def test_that_are_refused(self, mounts: tuple[str, ...]) -> None:
        with pytest.raises(Refused):
            plan_mounts(Setup(mounts=mounts), AMY)

    @given(st.text(max_size=20), st.text(max_size=30))
    def test_whatever_a_user_is_called(self, name: str, home: str) -> None:
        person = Person(uid=2001, name=name, gid=2001, home=home)
        setup = Setup(mounts=("/scratch/{user}:/scratch", "{home}/work:/work"))
        try:
            mounts, _ = plan_mounts(setup, person)
        except Refused:
            return
        for mount in mounts:
            assert mount.source in {f"/scratch/{name}", home, f"{home}/work"}
            assert posixpath.normpath(mount.source) == mount.source
            assert "\0" not in mount.source + mount.target

    @given(st.text(max_size=30) | PATHS)
    def test_whatever_working_directory_is_wanted(self, wanted: str) -> None:
        try:
            confined = confine_container(Setup(mounts=("{home}:/me",)), AMY, wanted, surroundings())
        except Refused:
            return
        assert posixpath.normpath(confined.workdir) == confined.workdir
        assert confined.workdir == "/me" or confined.workdir.startswith("/me/")


class TestUsers:
    """Whom its processes are."""

    def test_the_owner_with_all_groups(self) -> None:
        setup = Setup(user="0:0")
        confined = confine_container(setup, AMY, None, surroundings())
        assert (confined.user, confined.groups) == ("2001:2001", (100,))
        assert confined.drops_capabilities

    @pytest.mark.parametrize("uid", [0, 1, 999, 65534])
    def test_of_whom_there_are_none(self, uid: int) -> None:
        with pytest.raises(Refused):
            require_user(replace(AMY, uid=uid))

    @pytest.mark.parametrize(
        "setup",
        [
            Setup(network="host"),
            Setup(network="container:x"),
            Setup(network="HOST"),
            Setup(ipc="host"),
            Setup(ipc="shareable"),
            Setup(ipc="container:x"),
        ],
    )
    def test_in_no_namespace_of_the_host(self, setup: Setup) -> None:
        with pytest.raises(Refused, match="which no container of the service may have"):
            confine_container(setup, AMY, None, surroundings())

    @pytest.mark.parametrize("user", ["", "root", "0:0"])
    def test_nobody_is_root_inside_where_that_is_root_outside(self, user: str) -> None:
        """Decision 208: not even where every file system is mounted with nosuid,nodev."""
        setup = Setup(mounts=("{home}/work:/workspace",), user=user)
        confined = confine_container(setup, AMY, None, surroundings())
        assert (confined.user, confined.drops_capabilities) == ("2001:2001", True)
        assert confine_container(setup, AMY, None, surroundings(root_inside=True)).user == user
