import multiprocessing

from django.test import TestCase

from app.models import Item


class First(TestCase):
    def test_make(self):
        Item.objects.create(name="a")
        self.assertEqual(Item.objects.count(), 1)

    def test_in_a_worker(self):
        self.assertIsNotNone(multiprocessing.parent_process())


class Second(TestCase):
    def test_make(self):
        Item.objects.create(name="b")
        self.assertEqual(Item.objects.get().name, "b")


class Third(TestCase):
    def test_none(self):
        self.assertFalse(Item.objects.exists())
