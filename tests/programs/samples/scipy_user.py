import multiprocessing

from scipy.optimize import differential_evolution, rosen

if __name__ == "__main__":
    options = {"rng": 1, "maxiter": 20, "popsize": 5, "updating": "deferred", "polish": False}
    found = [differential_evolution(rosen, [(0, 2)] * 2, workers=n, **options) for n in (1, 2)]
    with multiprocessing.Pool(2) as pool:
        found.append(differential_evolution(rosen, [(0, 2)] * 2, workers=pool.map, **options))
    print(len({result.fun for result in found}), found[0].nfev > 100)
