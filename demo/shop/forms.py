from __future__ import annotations

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User

from shop.basket import MOST


class QuantityForm(forms.Form):
    quantity = forms.IntegerField(min_value=1, max_value=MOST, initial=1)


class SearchForm(forms.Form):
    q = forms.CharField(
        max_length=80,
        required=False,
        error_messages={"max_length": "We look for up to %(limit_value)d characters, and these were %(show_value)d."},
    )


class SignUpForm(UserCreationForm):
    email = forms.EmailField(help_text="Never leaves this machine.")
    newsletter = forms.BooleanField(required=False, label="Write to me when the kiln is opened.")

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ["username", "email"]


class OrderForm(forms.Form):
    name = forms.CharField(max_length=80)
    email = forms.EmailField()
    voucher = forms.CharField(max_length=20, required=False, help_text="Try BROKEN for a payment that fails.")
