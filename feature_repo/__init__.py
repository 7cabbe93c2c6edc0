"""The reference use case, whole: card payments, what is known about cards and terminals, and a model that spots fraud."""

PROJECT = "fraud"
