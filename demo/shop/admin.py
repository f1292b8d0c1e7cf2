from __future__ import annotations

from django.contrib import admin

from shop.models import OptOut, Order, OrderLine, Product


class OrderLineInline(admin.TabularInline):
    model = OrderLine
    extra = 0


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["name", "category", "maker", "price", "tagline"]
    prepopulated_fields = {"slug": ["name"]}


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "created", "name", "total", "voucher"]
    inlines = [OrderLineInline]


@admin.register(OptOut)
class OptOutAdmin(admin.ModelAdmin):
    list_display = ["user"]
