import pytest, cProfile, pstats, time
from lumigator.tests.test_browser import World
pytestmark=[pytest.mark.django_db(transaction=True)]
def test_w(atlas, alice, vera):
    p=cProfile.Profile(); p.enable(); t=time.time(); c=time.process_time()
    World(atlas, alice, vera, n_models=6)
    p.disable(); print("WALL",time.time()-t, time.process_time()-c)
    pstats.Stats(p).sort_stats("cumtime").print_stats(45)
